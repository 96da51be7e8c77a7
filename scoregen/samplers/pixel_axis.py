r"""Charts as functions of v = log x, in which draws of positive data are made."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoregen.sde.process import SDE


@dataclass(frozen=True)
class LogAxis:
    r"""A chart as a function of v = log x for data x > 0.

    Attributes:
        rate: of z = rate log(x + offset) + shift, or the scale of z = rate x + shift.
        shift: of either. offset: >= 0; None for an affine chart.
    """

    rate: float
    shift: float
    offset: float | None

    @classmethod
    def of(cls, sde: SDE, what: str) -> "LogAxis":
        r"""That of a process.

        Raises:
            TypeError: its chart is neither affine nor a logarithm of x + offset with offset >= 0.
        """
        log, affine = sde.chart.as_log(), sde.chart.as_affine()
        if affine is not None:
            return cls(affine.scale, affine.shift, None)
        if log is None or log.offset < 0:
            raise TypeError(
                f"{what} needs a process of pixels on an affine chart or on log(x + offset) with offset >= 0, got "
                f"{type(sde).__name__} with chart {type(sde.chart).__name__}. Use a model of pixels."
            )
        return cls(log.rate, log.shift, log.offset)

    @property
    def start(self) -> float:
        r"""The chart at x = 0, -infinity for a logarithm without offset."""
        if self.offset is None:
            return self.shift
        return self.rate * math.log(self.offset) + self.shift if self.offset else -math.inf

    @property
    def steepest(self) -> float:
        r"""dz/dx at x = 0, where it is largest."""
        if self.offset is None:
            return self.rate
        return self.rate / self.offset if self.offset else math.inf

    def z(self, v: Tensor) -> Tensor:
        r"""Chart coordinates of x = exp(v)."""
        if self.offset is None:
            return self.rate * v.exp() + self.shift
        return self.rate * self._log_sum(v) + self.shift

    def _log_sum(self, v: Tensor) -> Tensor:
        r"""log(x + offset)."""
        return torch.logaddexp(v, v.new_full((), math.log(self.offset))) if self.offset else v

    def log_slope(self, v: Tensor) -> Tensor:
        r"""log dz/dv, up to a constant."""
        return v if self.offset is None else v - self._log_sum(v)

    def of_x(self, x: Tensor) -> Tensor:
        r"""Chart coordinates of any x, -infinity where a logarithm has none."""
        if self.offset is None:
            return self.rate * x + self.shift
        return self.rate * (x + self.offset).clamp_min(0).log() + self.shift

    def v(self, z: Tensor) -> Tensor:
        r"""log x of chart coordinates, -infinity where x <= 0."""
        if self.offset is None:
            return ((z - self.shift) / self.rate).clamp_min(0).log()
        y = (z - self.shift) / self.rate
        return torch.expm1((y - math.log(self.offset)).clamp_min(0)).log() + math.log(self.offset) if self.offset else y
