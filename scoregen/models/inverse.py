r"""Inverse problems: denoisers of the data given an observation, without training.

    E[y_0 | u, z] = D + s^2 grad_u log p(z | u)                                                 (Tweedie)
    p(z | u) ~ N(A D, R + r^2 A A'),   r^2 = s^2 sd^2/(s^2 + sd^2)                              (Pi-GDM's approximation)
    D' = D + s^2 (dD/du)' A' (R + r^2 A A')^{-1} (z - A D)

r^2 is the variance of y_0 given u for data of variance sd^2. With normal data of covariance sd^2 I this is exact.

Reference: Song et al. (2023), "Pseudoinverse-guided diffusion models for inverse problems", ICLR; Chung et al. (2023),
arXiv 2209.14687.
"""

import torch
from torch import Tensor

from scoregen.models.observation import Inpainting, Observation
from scoregen.models.protocol import DenoiserLike
from scoregen.models.wrapper import DenoiserWrapper
from scoregen.sde.path import as_time


class PiGDM(DenoiserWrapper):
    r"""The pseudoinverse-guided denoiser: one call and one backward pass of the denoiser.

    Args:
        denoiser: D(u, s) of a process.
        observation: `Inpainting`, `MatrixObservation` or `LinearObservation`.
        sigma_data: sd, standard deviation of the data in model coordinates; that of the denoiser unless given.

    Raises:
        ValueError: no sigma_data, or one <= 0.
    """

    def __init__(self, denoiser: DenoiserLike, observation: Observation, sigma_data: float | None = None) -> None:
        super().__init__(denoiser)
        sigma_data = getattr(denoiser, "sigma_data", None) if sigma_data is None else sigma_data
        if sigma_data is None or not sigma_data > 0:
            raise ValueError(
                f"sigma_data must be > 0, got sigma_data={sigma_data}. Give the standard deviation of the data in "
                "model coordinates (a wrapper has none)."
            )
        self.observation, self.sigma_data = observation, float(sigma_data)

    @property
    def is_steep(self) -> bool:
        return True

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        s = as_time(s).cpu()  # a number is there; a tensor on an accelerator is waited for
        if s.numel() > 1 and not bool((s == s.flatten()[0]).all()):
            raise ValueError(f"s must be the same for the whole batch, got values from {s.min():.4g} to {s.max():.4g}.")
        s2 = s.flatten()[0].item() ** 2
        variance = s2 * self.sigma_data**2 / (s2 + self.sigma_data**2)
        differentiate = torch.is_grad_enabled() and u.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            v = u if differentiate else u.clone().detach().requires_grad_()
            denoised = self.denoiser(v, s.flatten()[0].item(), label)
            pull = self.observation.pull(denoised if differentiate else denoised.detach(), variance, self.sde)
            (gradient,) = torch.autograd.grad(denoised, v, pull, create_graph=differentiate)
            guided: Tensor = denoised + s2 * gradient
        return guided if differentiate else guided.detach()


class Replacement(DenoiserWrapper):
    r"""Known values overwritten in D, which keeps them at z + s eps along a trajectory.

        Cheap and **biased**: the unknown values are drawn from the network's guess for the noisy known ones, not from
        the posterior; more steps do not help. Exact only for unknown values that do not depend on the known ones. Use
        `PiGDM`.

    Args:
        denoiser: D(u, s) of a process.
        observation: the known values; their noise is ignored.

    Raises:
        TypeError: for an observation other than Inpainting.

    Reference: Song et al. (2021), arXiv 2011.13456, appendix I.2; its bias: Trippe et al. (2023), arXiv 2206.04119.
    """

    def __init__(self, denoiser: DenoiserLike, observation: Inpainting) -> None:
        super().__init__(denoiser)
        if not isinstance(observation, Inpainting):
            raise TypeError(
                f"Replacement needs an Inpainting (known values), got {type(observation).__name__}. Use PiGDM."
            )
        self.observation = observation

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        denoised = self.denoiser(u, s, label)
        mask, y, _ = self.observation.in_chart(denoised, self.sde)
        return torch.where(mask, y, denoised)
