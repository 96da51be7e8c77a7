r"""Training of a denoiser of latents, on images."""

from typing import Protocol

import torch
from torch import Tensor

from scoregen.losses.base import TrainableDenoiser, WrappedLoss
from scoregen.rng import Generators


class LatentDenoiser(TrainableDenoiser, Protocol):
    r"""A denoiser of the latents of an autoencoder, which it has."""

    def latents(self, x: Tensor, generator: Generators = None) -> Tensor:
        r"""Latents of images x (B, C, H, W), drawn from the posterior of the autoencoder."""
        ...


class LatentLoss(WrappedLoss):
    r"""A loss of the latents of images, which are drawn from the posterior of the model's autoencoder.

    Args:
        base_loss: any loss of a denoiser.

    Raises:
        TypeError: base_loss is no loss; in `forward`, a model without `latents`.
    """

    def forward(
        self,
        model: LatentDenoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        if not hasattr(model, "latents"):
            raise TypeError(
                f"LatentLoss needs a model with latents (model=latent_diffusion), got {type(model).__name__}. Choose "
                "loss=score_matching."
            )
        latents = model.latents(x_0, torch.default_generator if generator is None else generator)
        return self.base_loss(model, latents, label, generator, quantile)
