r"""Losses of a denoiser of latents, on images."""

import torch
from torch import Tensor, nn

from scoregen.losses.score_matching import WrappedLoss
from scoregen.rng import Generators


class LatentLoss(WrappedLoss):
    r"""Another loss on the latents of images, drawn from the posterior of the model's autoencoder.

    Args:
        base_loss: any loss of a denoiser.

    Raises:
        TypeError: base_loss is no loss; in `forward` for a model without `latents`.
    """

    def forward(
        self,
        model: nn.Module,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        if not hasattr(model, "latents"):
            raise TypeError(
                f"LatentLoss needs a model with latents (model=latent_diffusion), got {type(model).__name__}; give "
                "loss=score_matching."
            )
        latents = model.latents(x_0, torch.default_generator if generator is None else generator)
        return self.base_loss(model, latents, label, generator, quantile)
