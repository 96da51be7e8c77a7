r"""The chart of a table: each column by a map of its own.

    l = log x (positive columns) or x;   z = scale l + shift;   y = spline(z)

The spline is monotone rational-quadratic between knots, so that it and its inverse are closed formulas, and linear
beyond them: it takes the law of a column to about N(0, 1/4), with tails that have no end. Coordinates after those of
the columns, which are one-hots, stay as they are.

Reference: Gregory & Delbourgo (1982); Durkan et al. (2019), arXiv 1906.04032, equations 4 to 8 (the spline).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from scoregen.sde.chart import Chart
from scoregen.sde.path import Table

SPREAD = 0.5  # standard deviation of a column in model coordinates
_STEEPEST = 8.0  # slopes of the spline lie between 1/8 and 8


@dataclass(frozen=True)
class _Piece:
    r"""What a spline is in the bins of some values: where they begin, their sizes, and the slopes at both ends."""

    left: Tensor
    low: Tensor
    width: Tensor
    height: Tensor
    first: Tensor
    last: Tensor


class Columns(Chart):
    r"""The chart of a table of D columns, (B, D + one-hots).

    Args:
        logarithmic: for each column, whether its logarithm is taken; then its values must be > 0.
        scale, shift: of each column, scale > 0.
        knots: of each column, increasing values of z; an empty list is no spline.
        levels: of each column, increasing values of y at its knots.

    Raises:
        ValueError: lengths that differ, a scale that is not > 0, knots or levels that do not increase; in `forward`
            values of a logarithmic column that are <= 0 or infinite. On an accelerator these become nan instead.
    """

    def __init__(
        self,
        logarithmic: Sequence[bool],
        scale: Sequence[float],
        shift: Sequence[float],
        knots: Sequence[Sequence[float]] = (),
        levels: Sequence[Sequence[float]] = (),
    ) -> None:
        count = len(scale)
        self.logarithmic, self.scale, self.shift = list(logarithmic), list(scale), list(shift)
        self.knots, self.levels = [list(row) for row in knots], [list(row) for row in levels]
        sizes = {"logarithmic": len(self.logarithmic), "shift": len(self.shift)}
        sizes |= {"knots": len(self.knots) or count, "levels": len(self.levels) or count}
        for name, size in sizes.items():
            if size != count:
                raise ValueError(f"{name} must have an entry for each of the {count} columns of scale, got {size}.")
        if not all(0 < value < math.inf for value in self.scale):
            raise ValueError(f"scale must be > 0 and finite for each column, got {self.scale}.")
        self._log = Table(torch.tensor(self.logarithmic, dtype=torch.float64))
        self._scale, self._shift = (Table(torch.tensor(v, dtype=torch.float64)) for v in (self.scale, self.shift))
        self._tables = _tables(self.knots or [[]] * count, self.levels or [[]] * count)

    @classmethod
    def fit(cls, x: Tensor, logarithmic: Sequence[bool], knots: int = 15) -> dict[str, Any]:
        r"""The arguments with which each column has about the law N(0, 1/4), as plain data.

        Args:
            x: numbers (N, D) in units of the data, nan where a value is missing.
            logarithmic: whether the logarithm of a column is taken.
            knots: of the splines; a column of fewer than 20 values a knot has fewer. 0: none.
        """
        found: dict[str, Any] = {"logarithmic": list(logarithmic), "scale": [], "shift": [], "knots": [], "levels": []}
        for column, log in zip(x.double().T, logarithmic, strict=True):
            values = column[column.isfinite()]
            values = values.log() if log else values
            deviation = values.std(correction=0).item() if len(values) else 0.0
            scale = SPREAD / deviation if deviation > 0 else SPREAD
            shift = -scale * values.mean().item() if len(values) else 0.0
            inner, outer = gaussianised(values * scale + shift, min(knots, len(values) // 20))
            found["scale"].append(scale)
            found["shift"].append(shift)
            found["knots"].append(inner)
            found["levels"].append(outer)
        return found

    def forward(self, x: Tensor) -> Tensor:
        count, log = len(self.scale), self._log.on(x.device) > 0
        numbers, rest = x[..., :count], x[..., count:]
        numbers = torch.where(log, self._logarithms(numbers, log), numbers)
        z = numbers * self._scale.on(x.device).to(x.dtype) + self._shift.on(x.device).to(x.dtype)
        return torch.cat([self._spline(z)[0], rest], -1)

    def _logarithms(self, numbers: Tensor, log: Tensor) -> Tensor:
        bad = log & ((numbers <= 0) | (numbers == math.inf))
        if numbers.device.type == "cpu" and bool(bad.any()):
            column = int(bad.reshape(-1, bad.shape[-1]).any(0).nonzero()[0])
            values = ", ".join(f"{v:.4g}" for v in numbers[bad][:5].tolist())
            raise ValueError(
                f"x must be > 0 and finite in a column with a logarithm, got {int(bad.sum())} values that are not, the "
                f"first in column {column} ({values}). Use a real or zero_positive column for them."
            )
        return torch.where(bad | ~log, math.nan, numbers).log()

    def inverse(self, y: Tensor) -> Tensor:
        count = len(self.scale)
        z = self._inverted(y[..., :count])
        numbers = (z - self._shift.on(y.device).to(y.dtype)) / self._scale.on(y.device).to(y.dtype)
        positive = numbers.exp().clamp_min(torch.finfo(y.dtype).tiny)  # rounding could give 0, which has no log
        return torch.cat([torch.where(self._log.on(y.device) > 0, positive, numbers), y[..., count:]], -1)

    def inverse_derivatives(self, y: Tensor) -> tuple[Tensor, Tensor]:
        count = len(self.scale)
        z = self._inverted(y[..., :count])
        _, slope, bend = self._spline(z)
        first, second = 1 / slope, -bend / slope**3  # of z as a function of y
        scale = self._scale.on(y.device).to(y.dtype)
        first, second = first / scale, second / scale  # of l
        x = self.inverse(y)[..., :count]
        log = self._log.on(y.device) > 0
        second = torch.where(log, x * (second + first**2), second)
        first = torch.where(log, x * first, first)
        ones = torch.ones_like(y[..., count:])
        return torch.cat([first, ones], -1), torch.cat([second, torch.zeros_like(ones)], -1)

    def _pieces(self, values: Tensor, of: int) -> _Piece:
        r"""The pieces in which values (..., D) lie, by knots (of=0) or by levels (of=1)."""
        tables = [table.on(values.device).to(values.dtype) for table in self._tables]
        flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1]).T.contiguous()
        bins = torch.searchsorted(tables[of], flat, right=True).clamp(1, tables[of].shape[1] - 1)
        parts = [table.gather(1, bins - side).T.reshape(values.shape) for table in tables for side in (1, 0)]
        left, right, low, high, first, last = parts
        return _Piece(left, low, right - left, high - low, first, last)

    def _spline(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""The spline at z (..., D), with its first two derivatives."""
        p = self._pieces(z, 0)
        share = (z - p.left) / p.width
        xi, s = share.clamp(0, 1), p.height / p.width
        mixed, excess = xi * (1 - xi), p.first + p.last - 2 * s
        below = s + excess * mixed
        y = p.low + p.height * (s * xi**2 + p.first * mixed) / below
        above = p.last * xi**2 + 2 * s * mixed + p.first * (1 - xi) ** 2
        slope = s**2 * above / below**2
        rise = 2 * p.last * xi + 2 * s * (1 - 2 * xi) - 2 * p.first * (1 - xi)
        bend = s**2 * (rise * below - 2 * above * excess * (1 - 2 * xi)) / below**3 / p.width
        outside = (share < 0) | (share > 1)
        y = torch.where(outside, y + slope * (z - (p.left + xi * p.width)), y)
        return torch.where(z.isnan(), z, y), slope, torch.where(outside, 0.0, bend)

    def _inverted(self, y: Tensor) -> Tensor:
        r"""z of the spline's values y (..., D)."""
        p = self._pieces(y, 1)
        height = (y - p.low).clamp_min(0).minimum(p.height)
        s = p.height / p.width
        excess = p.first + p.last - 2 * s
        a = p.height * (s - p.first) + height * excess
        b = p.height * p.first - height * excess
        c = -s * height
        xi = 2 * c / (-b - (b**2 - 4 * a * c).clamp_min(0).sqrt())
        z = p.left + xi.clamp(0, 1) * p.width
        over = y - (p.low + height)  # beyond the ends, where the spline is linear
        slope = torch.where(over < 0, p.first, p.last)
        return torch.where(y.isnan(), y, torch.where(over != 0, z + over / slope, z))


def _tables(knots: Sequence[Sequence[float]], levels: Sequence[Sequence[float]]) -> list[Table]:
    r"""Knots, levels and slopes, (D, K) each: columns of fewer knots repeat a line beyond their last one."""
    rows: list[list[list[float]]] = [[], [], []]
    most = max((len(row) for row in knots), default=0)
    for inner, outer in zip(knots, levels, strict=True):
        x, y = (list(inner), list(outer)) if inner else ([0.0, 1.0], [0.0, 1.0])
        if len(x) != len(y) or len(x) < 2 or any(not b > a for row in (x, y) for a, b in pairwise(row)):
            raise ValueError(f"knots and levels must increase, two or more of each, got {inner} and {outer}.")
        slopes = _slopes(x, y)
        for _ in range(max(most, 2) - len(x)):
            x, y, slopes = [*x, x[-1] + 1.0], [*y, y[-1] + slopes[-1]], [*slopes, slopes[-1]]
        for row, part in zip(rows, (x, y, slopes), strict=True):
            row.append(part)
    return [Table(torch.tensor(row, dtype=torch.float64).reshape(len(knots), max(most, 2))) for row in rows]


def _slopes(x: Sequence[float], y: Sequence[float]) -> list[float]:
    r"""Slopes at the knots: harmonic means of those of the bins, at the ends those of the bins."""
    bins = [(d - c) / (b - a) for a, b, c, d in zip(x, x[1:], y, y[1:], strict=False)]
    inner = [2 * a * b / (a + b) for a, b in pairwise(bins)]
    return [bins[0], *inner, bins[-1]]


def gaussianised(z: Tensor, knots: int) -> tuple[list[float], list[float]]:
    r"""Knots and levels of the spline that takes values z (N,) of standard deviation 1/2 to about N(0, 1/4).

        A knot that would make the spline steeper than 8, as where many values are equal, or flatter than 1/8 is left
        out.

    Args:
        knots: quantiles that are matched; fewer than 3 give no spline.
    """
    if knots < 3:
        return [], []
    shares = (torch.arange(knots, dtype=torch.float64) + 0.5) / knots
    inner = torch.quantile(z.double(), shares).tolist()
    outer = (SPREAD * torch.special.ndtri(shares)).tolist()
    kept = [(inner[0], outer[0])]
    for x, y in zip(inner[1:], outer[1:], strict=True):
        slope = (y - kept[-1][1]) / max(x - kept[-1][0], 1e-12)
        if 1 / _STEEPEST < slope < _STEEPEST:
            kept.append((x, y))
    if len(kept) < 3:
        return [], []
    return [x for x, _ in kept], [y for _, y in kept]
