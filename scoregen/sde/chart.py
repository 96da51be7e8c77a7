r"""Charts: invertible elementwise maps from data x to model coordinates y = phi(x), in which every process is Gaussian.

x = psi(y);  log|dy/dx| = sum log|phi'(x)|
dx = psi'(y) dy + psi''(y)/2 d[y]        (Ito), so a chart also gives psi' and psi''.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from scoregen.checks import at_least, finite, positive


@dataclass(frozen=True)
class Logarithm:
    r"""The map y = rate log(x + offset) + shift.

    Attributes:
        rate: > 0. offset, shift: finite.
    """

    rate: float
    offset: float
    shift: float


class Chart(ABC):
    r"""An increasing elementwise map y = phi(x).

    Attributes:
        elementwise: False for a map of whole samples, which changes their shape and has no derivatives here.
    """

    elementwise: ClassVar[bool] = True

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        r"""Data x (B, *S) to model coordinates y."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        r"""Model coordinates y (B, *S) to data x."""

    @abstractmethod
    def inverse_derivatives(self, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""psi'(y) and psi''(y), elementwise."""

    def shape_of(self, shape: Sequence[int]) -> tuple[int, ...]:
        r"""The shape of y for one sample x of a shape (*S)."""
        return tuple(shape)

    def as_affine(self) -> "Affine | None":
        r"""This chart as y = scale x + shift, None if it is not affine; override it in one that is."""
        return None

    def as_log(self) -> Logarithm | None:
        r"""This chart as y = rate log(x + offset) + shift, None if it is no logarithm; override it in one that is."""
        return None

    def log_det(self, x: Tensor) -> Tensor:
        r"""log |dy/dx| summed over the dimensions of each sample, (B,)."""
        slope, _ = self.inverse_derivatives(self.forward(x))
        return -slope.log().flatten(1).sum(1)


class Affine(Chart):
    r"""y = scale x + shift; `Affine()` is the identity and `Affine(2, -1)` takes images in [0, 1] to [-1, 1].

    Args:
        scale: positive factor.
        shift: added after it.

    Raises:
        ValueError: scale <= 0, or values that are not finite.
    """

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        positive(scale=scale)
        finite(shift=shift)
        self.scale, self.shift = float(scale), float(shift)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift

    def inverse(self, y: Tensor) -> Tensor:
        return (y - self.shift) / self.scale

    def inverse_derivatives(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(y, 1 / self.scale), torch.zeros_like(y)

    def as_affine(self) -> Self:
        return self


class Log(Chart):
    r"""y = log(x + offset), the Lamperti transform of multiplicative noise.

    Args:
        offset: c >= 0; c = 1 is nearly additive on [0, 1], c -> 0 truly multiplicative. Exact zeros need c > 0.

    Raises:
        ValueError: at construction for offset < 0; in `forward` for x + offset <= 0 or infinite, with the values and
            their number. On an accelerator, where a look would wait for it, such values become nan instead.
    """

    def __init__(self, offset: float = 0.0) -> None:
        at_least(0, offset=offset)
        self.offset = float(offset)

    def forward(self, x: Tensor) -> Tensor:
        shifted = x + self.offset
        bad = ~((shifted > 0) & (shifted < math.inf))
        if x.device.type != "cpu":
            return torch.where(bad, math.nan, shifted.log())
        if bad.any():
            values = ", ".join(f"{v:.4g}" for v in x[bad][:5].tolist())
            raise ValueError(
                f"x + offset must be > 0 and finite for the log chart, got {int(bad.sum())} of {x.numel()} values that "
                f"are not (first: {values}) with offset={self.offset}. Use a larger offset, or a mask for exact zeros."
            )
        return shifted.log()

    def inverse(self, y: Tensor) -> Tensor:
        limits = torch.finfo(y.dtype)
        inside = -self.offset * (1 - 2 * limits.eps) if self.offset else limits.tiny
        return (y.exp() - self.offset).clamp_min(inside)  # else rounding could give x = -offset, which has no log

    def inverse_derivatives(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y.exp(), y.exp()

    def as_log(self) -> Logarithm:
        return Logarithm(1.0, self.offset, 0.0)


class Compose(Chart):
    r"""y = outer(inner(x)).

    Args:
        inner: applied to the data first.
        outer: applied to its result.
    """

    def __init__(self, inner: Chart, outer: Chart) -> None:
        self.inner, self.outer = inner, outer

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(x))

    def inverse(self, y: Tensor) -> Tensor:
        return self.inner.inverse(self.outer.inverse(y))

    def inverse_derivatives(self, y: Tensor) -> tuple[Tensor, Tensor]:
        outer_1, outer_2 = self.outer.inverse_derivatives(y)
        inner_1, inner_2 = self.inner.inverse_derivatives(self.outer.inverse(y))
        return inner_1 * outer_1, inner_2 * outer_1**2 + inner_1 * outer_2

    def as_affine(self) -> Affine | None:
        inner, outer = self.inner.as_affine(), self.outer.as_affine()
        if inner is None or outer is None:
            return None
        return Affine(outer.scale * inner.scale, outer.scale * inner.shift + outer.shift)

    def as_log(self) -> Logarithm | None:
        inner, outer = self.inner.as_log(), self.outer.as_affine()
        if inner is not None and outer is not None:
            return Logarithm(outer.scale * inner.rate, inner.offset, outer.scale * inner.shift + outer.shift)
        first, log = self.inner.as_affine(), self.outer.as_log()
        if first is None or log is None:
            return None
        # rate log(scale x + shift + offset) = rate log(x + (shift + offset)/scale) + rate log scale
        return Logarithm(
            log.rate, (first.shift + log.offset) / first.scale, log.shift + log.rate * math.log(first.scale)
        )
