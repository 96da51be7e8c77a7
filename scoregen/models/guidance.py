r"""Guidance: extrapolation from a weaker denoiser W through a better one D.

    D_g(u, s) = W + scale (D - W)        scale 1: D itself; 0: W; above 1: away from W

Since D = u + s^2 score, D_g is the denoiser whose score at the noise ratio s is that of p_D^scale p_W^{1-scale}, each
smoothed by s: not the diffusion of any one law in general, so no density of the data belongs to it (for normal laws of
equal covariance it is exactly that of mean m_W + scale (m_D - m_W)). Of flow maps the jumps D(u, s, r) are
extrapolated, which is the guided flow for near levels and an approximation of it for far ones.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from scoregen.checks import finite
from scoregen.models.protocol import DenoiserLike, jump, takes_next
from scoregen.models.wrapper import DenoiserWrapper
from scoregen.sde.path import as_time, expand, readable

_STEEP = 2.0  # scale above which old values mislead multistep samplers (docs/samplers.md, "Under guidance")


class _Guidance(DenoiserWrapper):
    r"""Extrapolation inside an interval of noise ratios, the better denoiser outside it.

    Args:
        denoiser: the better denoiser.
        scale: finite; 1 is none.
        interval: (s_low, s_high): guidance acts for s_low <= s <= s_high.

    Raises:
        ValueError: a scale that is not finite, or an interval without 0 <= s_low < s_high.
    """

    def __init__(self, denoiser: DenoiserLike, scale: float, interval: tuple[float, float] = (0.0, math.inf)) -> None:
        super().__init__(denoiser)
        finite(scale=scale)
        if len(interval) != 2 or not 0 <= interval[0] < interval[1]:
            raise ValueError(f"interval must be noise ratios (s_low, s_high) with 0 <= s_low < s_high, got {interval}.")
        self.scale = float(scale)
        self.interval = (float(interval[0]), float(interval[1]))

    @property
    def is_steep(self) -> bool:
        return self.scale > _STEEP or super().is_steep

    @property
    def takes_next(self) -> bool:
        return takes_next(self.denoiser)

    def forward(
        self, u: Tensor, s: Tensor | float, label: Tensor | None = None, *, next_s: Tensor | float | None = None
    ) -> Tensor:
        s = as_time(s)
        inside = (s >= self.interval[0]) & (s <= self.interval[1])
        if self.scale == 1 or (readable(s) and not bool(inside.any())):
            return jump(self.denoiser, u, s, label, next_s)
        weak, strong = self._branches(u, s, label, next_s)
        scale = torch.where(inside, self.scale, 1.0).to(s)
        return weak + expand(scale, u) * (strong - weak)

    @abstractmethod
    def _branches(
        self, u: Tensor, s: Tensor, label: Tensor | None, next_s: Tensor | float | None
    ) -> tuple[Tensor, Tensor]:
        r"""W and D."""


class ClassifierFreeGuidance(_Guidance):
    r"""The weaker denoiser is the same network without its label: D_g = D(u) + scale (D(u, label) - D(u)).

        Both come from one call on a doubled batch. Without a label there is nothing to guide and D(u) is returned.

    Args:
        denoiser: a conditional denoiser, trained with some labels dropped; label -1 is "no label".
        scale: 1 is none, 0 unconditional.
        interval: (s_low, s_high), noise ratios at which it acts; limiting it to the middle ones keeps diversity.

    Raises:
        ValueError: a scale that is not finite, or an interval without 0 <= s_low < s_high.

    Reference: Ho & Salimans (2022), arXiv 2207.12598; Kynkaanniemi et al. (2024), arXiv 2404.07724 (interval).
    """

    def forward(
        self, u: Tensor, s: Tensor | float, label: Tensor | None = None, *, next_s: Tensor | float | None = None
    ) -> Tensor:
        if label is None:
            return jump(self.denoiser, u, s, None, next_s)
        return super().forward(u, s, label, next_s=next_s)

    def _branches(
        self, u: Tensor, s: Tensor, label: Tensor | None, next_s: Tensor | float | None
    ) -> tuple[Tensor, Tensor]:
        assert label is not None  # `forward` returns before
        both = torch.cat([torch.full_like(label, -1), label])
        if isinstance(next_s, Tensor) and next_s.ndim:
            next_s = torch.cat([next_s, next_s])
        s = s if s.ndim == 0 else torch.cat([s, s])
        weak, strong = jump(self.denoiser, torch.cat([u, u]), s, both, next_s).chunk(2)
        return weak, strong


class Autoguidance(_Guidance):
    r"""The weaker denoiser is a smaller or less trained one of the same task.

    Args:
        denoiser: the better denoiser.
        bad_denoiser: the weaker denoiser, of the same process and the same labels.
        scale: 1 is none.
        interval: (s_low, s_high), noise ratios at which it acts.

    Raises:
        ValueError: a scale that is not finite, or an interval without 0 <= s_low < s_high.

    Reference: Karras et al. (2024), arXiv 2406.02507.
    """

    compiled_parts: ClassVar[tuple[str, ...]] = ("denoiser", "bad_denoiser")

    def __init__(
        self,
        denoiser: DenoiserLike,
        bad_denoiser: DenoiserLike,
        scale: float,
        interval: tuple[float, float] = (0.0, math.inf),
    ) -> None:
        super().__init__(denoiser, scale, interval)
        self.bad_denoiser = bad_denoiser

    @property
    def takes_next(self) -> bool:
        return takes_next(self.denoiser) and takes_next(self.bad_denoiser)

    def _branches(
        self, u: Tensor, s: Tensor, label: Tensor | None, next_s: Tensor | float | None
    ) -> tuple[Tensor, Tensor]:
        return jump(self.bad_denoiser, u, s, label, next_s), jump(self.denoiser, u, s, label, next_s)
