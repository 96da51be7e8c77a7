r"""A sampler as a function of its noise, which interpolation and the measures of smoothness are about."""

import torch
from torch import Tensor

from scoregen.models.protocol import DenoiserLike
from scoregen.samplers.base import Bound, CountingZeroDenoiser, Sampler, check_suits
from scoregen.samplers.start import check_label, prior_moments


class FromNoise:
    r"""x = G(z): the sample of a deterministic sampler from the start u = mean + sqrt(var + s^2) z.

        For z drawn from a generator it is what `sampler(denoiser, shape, generator=...)` gives.

    Args:
        denoiser: D(u, s) of a process.
        sampler: one that draws no noise on its way.
        label: (), one label for all, or None.

    Raises:
        ValueError: the sampler draws noise, as a dry run tells, or its grid does not fit the process.
    """

    def __init__(self, denoiser: DenoiserLike, sampler: Sampler, label: int | None = None) -> None:
        check_suits(sampler, denoiser)
        self.denoiser, self.sampler, self.label = denoiser, sampler, label
        self.sde = denoiser.sde
        self.grid = sampler.grid(self.sde, sampler.steps)
        zero = torch.zeros(1, *(self.sde.data_mean.shape or (1,)))
        sampler.integrate(CountingZeroDenoiser(self.sde), zero, self.grid, self._refuse)

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Tensor:
        r"""Data (B, *S) from standard normal z (B, *S)."""
        labels = None if self.label is None else torch.full((len(z),), self.label, device=z.device)
        check_label(self.denoiser, labels, len(z))
        mean, std = prior_moments(self.sde, self.grid[0].item(), z)
        bound = Bound(self.denoiser, labels)
        return self.sde.from_chart(self.sampler.integrate(bound, mean + std * z, self.grid, self._refuse))

    def _refuse(self, like: Tensor) -> Tensor:
        raise ValueError(
            f"sampler must be deterministic to be a function of the noise, got {type(self.sampler).__name__}, which "
            "draws more. Use DDIM with eta=0, Heun without churn or ExponentialABM."
        )
