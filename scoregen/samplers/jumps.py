r"""Encoding and decoding in a few calls: DDIM's steps along the flow in either direction, exact for a flow map."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from scoregen.checks import positive, whole
from scoregen.models.protocol import DenoiserLike, jump, takes_next
from scoregen.sde.additive import karras


class Jumps:
    r"""Steps u_r = D + (r/s) (u - D) between noise ratios, one call each, in place of a solver.

        With a flow map D(u, s, r) every step is a jump along the path. To more noise it is the inverse of the jump J
        back, by Newton steps with the slope of normal data, a = sqrt((sd^2 + r^2)/(sd^2 + s^2)) from s down to r:

            v = u_r / a,   then v + (u_r - J(v)) / a,   where sd is the denoiser's sigma_data, or else .5.

        One is exact for normal data and accurate for others; more may go astray where J is far from linear.

        With another denoiser it is DDIM's inversion, of order 1.

    Args:
        steps: number of steps, and of calls, >= 1.
        rho: spacing of the levels between, s^(1/rho) in equal steps, > 0.
        corrections: Newton steps, of a call each, of a jump of a flow map to more noise. 0: its own jump there, for
            maps that were trained with upward > 0.

    Raises:
        ValueError: values out of range.

    Reference: Song, Meng, Ermon (2021), arXiv 2010.02502, section 4.3 (inversion).
    """

    def __init__(self, steps: int = 1, rho: float = 12.0, corrections: int = 1) -> None:
        whole(1, steps=steps)
        whole(0, corrections=corrections)
        positive(rho=rho)
        self.steps, self.rho, self.corrections = int(steps), float(rho), int(corrections)

    def __call__(
        self, denoiser: DenoiserLike, u: Tensor, start: float, end: float, label: Tensor | None = None
    ) -> Tensor:
        r"""The state at the noise ratio `end`, (B, *S), from u (B, *S) at `start`; they may stand in either order."""
        fractions = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64, device="cpu")
        levels = [start, *karras(fractions, start, end, self.rho).tolist()[1:-1], end]
        invert = takes_next(denoiser) and self.corrections > 0
        for s, r in pairwise(levels):
            u = self._back(denoiser, u, s, r, label) if invert and r > s else _jumped(denoiser, u, s, r, label)
        return u

    def _back(self, denoiser: DenoiserLike, u: Tensor, s: float, r: float, label: Tensor | None) -> Tensor:
        r"""The state at r > s from which a flow map jumps to u at s."""
        sd = float(getattr(denoiser, "sigma_data", 0.5))
        slope = math.sqrt((sd**2 + s**2) / (sd**2 + r**2))
        v = u / slope
        for _ in range(self.corrections):
            v = v + (u - _jumped(denoiser, v, r, s, label)) / slope
        return v


def _jumped(denoiser: DenoiserLike, u: Tensor, s: float, r: float, label: Tensor | None) -> Tensor:
    r"""D + (r/s) (u - D)."""
    denoised = jump(denoiser, u, s, label, r if takes_next(denoiser) else None)
    return denoised + r / s * (u - denoised)
