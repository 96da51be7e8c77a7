r"""A denoiser of the latents of an autoencoder: data are images, coordinates are latents."""

import copy
from typing import ClassVar, Self

from torch import nn

from scoregen.models.autoencoder import Autoencoder, HasLatents, Latent, image_shape_of
from scoregen.models.denoiser import Denoiser
from scoregen.sde.process import SDE


class LatentDenoiser(Denoiser):
    r"""A `Denoiser` whose process runs in the latents of an autoencoder, which is kept and saved with it.

    Args:
        network: (z, c_noise, label) -> tensor; it states the `shape` of a latent.
        autoencoder: frozen.
        sde: the process; its chart is replaced by the autoencoder.
        sigma_data, prediction, time: as in `Denoiser`.

    Raises:
        ValueError: as `Denoiser`.
    """

    compiled_parts: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        network: nn.Module,
        autoencoder: Autoencoder,
        sde: SDE,
        sigma_data: float = 1.0,
        prediction: str = "eps",
        time: str = "index",
    ) -> None:
        super().__init__(network, in_latents(sde, autoencoder), sigma_data, prediction, time)
        self.autoencoder = autoencoder

    @property
    def shape(self) -> tuple[int, ...] | None:
        latent = super().shape
        return None if latent is None else image_shape_of(self.autoencoder.vae.config, latent)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.autoencoder.eval()
        return self


def in_latents(sde: SDE, autoencoder: HasLatents) -> SDE:
    r"""A process whose data are images and whose coordinates are their latents."""
    own = copy.copy(sde)
    own.chart = Latent(autoencoder)
    return own
