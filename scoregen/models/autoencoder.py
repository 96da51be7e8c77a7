r"""An autoencoder of diffusers, and its latents as the coordinates of a process.

    z = (E(2x - 1) - shift) scale,   x = (G(z/scale + shift) + 1)/2

As a chart it is no elementwise map and not exactly invertible: what samples, encodes or trains works on it as on any
other chart, what needs its derivatives (densities, SDEs in data space, certificates) is refused.

Reference: Rombach et al. (2022), arXiv 2112.10752.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from scoregen.checks import one_of
from scoregen.errors import UserError
from scoregen.models.adapter import import_diffusers, made
from scoregen.rng import Generators, randn
from scoregen.sde.chart import Chart


class HasLatents:
    r"""Images and latents of whatever has an autoencoder of diffusers as `vae`."""

    vae: Any

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        r"""The shape of the latent of an image of shape (C, H, W).

        Raises:
            UserError: other channels, or sides that the autoencoder does not divide.
        """
        config, factor = self.vae.config, factor_of(self.vae.config)
        channels, height, width = shape
        if channels != config.in_channels:
            raise UserError(f"data: images must have {config.in_channels} channels, got shape {tuple(shape)}.")
        if height % factor or width % factor:
            near = max(factor, round(min(height, width) / factor) * factor)
            raise UserError(
                f"data.size: the sides of an image must be divisible by {factor}, the factor of the autoencoder, got "
                f"{height} x {width}. Give data.size={near}."
            )
        return int(config.latent_channels), height // factor, width // factor

    @torch.no_grad()
    def latents(self, x: Tensor, generator: Generators = None) -> Tensor:
        r"""Latents of images.

        Args:
            x: images (B, C, H, W) in [0, 1].
            generator: for a draw from the autoencoder's posterior; None for its mean.
        """
        self.latent_shape(x.shape[1:])
        posterior = self.vae.encode((2 * x - 1).to(self.vae.dtype)).latent_dist
        z: Tensor = posterior.mean.to(x)
        if generator is not None:
            z = z + posterior.std.to(x) * randn(z.shape, generator, z.dtype, z.device)
        return (z - self._shift) * self._scale

    @torch.no_grad()
    def images(self, z: Tensor) -> Tensor:
        r"""Images (B, C, H, W), about in [0, 1], of latents."""
        decoded: Tensor = self.vae.decode((z / self._scale + self._shift).to(self.vae.dtype)).sample
        return decoded.to(z) / 2 + 0.5

    @property
    def _scale(self) -> float:
        return float(self.vae.config.scaling_factor)

    @property
    def _shift(self) -> float:
        return getattr(self.vae.config, "shift_factor", None) or 0.0


class Autoencoder(HasLatents, nn.Module):
    r"""The autoencoder of a latent diffusion model, frozen, by its class and configuration.

    Args:
        kind: its class in diffusers, AutoencoderKL.
        config: arguments of that class.

    Raises:
        ValueError: another class, or a value that it refuses.
    """

    def __init__(self, kind: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        one_of(("AutoencoderKL",), kind=kind)
        self.kind, self.config = kind, dict(config)
        self.vae = made(kind, config).requires_grad_(False).eval()

    @staticmethod
    def import_parts() -> Any:
        r"""The package of the network, imported late since that takes seconds."""
        return import_diffusers()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)  # it is not trained


def factor_of(config: Mapping[str, Any]) -> int:
    r"""How many times an autoencoder of a configuration shrinks a side."""
    return int(2 ** (len(config.get("block_out_channels") or (64,)) - 1))


def image_shape_of(config: Mapping[str, Any], latent: Sequence[int]) -> tuple[int, ...]:
    r"""The shape of the image that an autoencoder of a configuration makes of a latent of shape (C, H, W)."""
    _, height, width = latent
    return int(config.get("out_channels", 3)), height * factor_of(config), width * factor_of(config)


class Latent(Chart):
    r"""Images x in [0, 1] to the latents y of an autoencoder, the mean of its posterior.

    Args:
        autoencoder: whoever owns it moves it to a device.
    """

    elementwise = False

    def __init__(self, autoencoder: HasLatents) -> None:
        self.autoencoder = autoencoder

    def forward(self, x: Tensor) -> Tensor:
        return self.autoencoder.latents(x)

    def inverse(self, y: Tensor) -> Tensor:
        return self.autoencoder.images(y)

    def shape_of(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.autoencoder.latent_shape(shape)

    def log_det(self, x: Tensor) -> NoReturn:
        self.inverse_derivatives(x)

    def inverse_derivatives(self, y: Tensor) -> NoReturn:
        raise ValueError(
            "the process must have an elementwise chart, got the latents of an autoencoder, which give images no "
            "density and no noise of their own. Use a model of pixels."
        )
