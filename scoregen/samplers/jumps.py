r"""Encoding and decoding in a few calls: DDIM's steps along the flow in either direction, exact for a flow map."""

from itertools import pairwise

import torch
from torch import Tensor

from scoregen.checks import positive, whole
from scoregen.models.protocol import DenoiserLike, jump, takes_next
from scoregen.sde.additive import karras


class Jumps:
    r"""Steps u_r = D + (r/s) (u - D) between noise ratios, one call each, in place of a solver.

        With a flow map D(u, s, r) every step is a jump along the path, to less noise or to more. With another denoiser
        it is DDIM's inversion, of order 1.

    Args:
        steps: number of steps and of calls, >= 1.
        rho: spacing of the levels between, s^(1/rho) in equal steps, > 0.

    Raises:
        ValueError: values out of range.

    Reference: Song, Meng, Ermon (2021), arXiv 2010.02502, section 4.3 (inversion).
    """

    def __init__(self, steps: int = 1, rho: float = 7.0) -> None:
        whole(1, steps=steps)
        positive(rho=rho)
        self.steps, self.rho = int(steps), float(rho)

    def __call__(
        self, denoiser: DenoiserLike, u: Tensor, start: float, end: float, label: Tensor | None = None
    ) -> Tensor:
        r"""The state at the noise ratio `end`, (B, *S), from u (B, *S) at `start`; they may stand in either order."""
        fractions = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64, device="cpu")
        levels = [start, *karras(fractions, start, end, self.rho).tolist()[1:-1], end]
        for s, r in pairwise(levels):
            denoised = jump(denoiser, u, s, label, r if takes_next(denoiser) else None)
            u = denoised + r / s * (u - denoised)
        return u
