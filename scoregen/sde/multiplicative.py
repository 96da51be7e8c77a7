r"""Multiplicative processes: Gaussian paths on log(x + offset), so that the noise is proportional to the signal.

    dX = mu X dt + vol X dW,  X = x + offset     <=>     d log X = (mu - vol^2/2) dt + vol dW        (Lamperti, Ito)

so geometric Brownian motion is a variance-exploding process on log X with m(t) = int (mu - vol^2/2) and v(t) = int
vol^2:

    X_t = X_0 exp(m + sqrt(v) eps)

| process | alpha(t) | sigma(t) | shift(t) |
|---|---|---|---|
| GBM | 1 | sqrt(v) | m |
| geometric OU | e^{-B/2} | sqrt(1 - e^{-B}) | mean (1 - alpha) |

A standardised chart y = a log X + b (from `data_range`) scales them: sigma by a, shift along with it; the process
stays the same.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scoregen.checks import finite
from scoregen.sde.additive import VP
from scoregen.sde.chart import Affine, Compose, Log, Logarithm
from scoregen.sde.path import Table, as_time
from scoregen.sde.process import SDE

Coefficient = Callable[[Tensor], Tensor]

_LEGENDRE = np.polynomial.legendre.leggauss(48)
_NODES, _WEIGHTS = Table(torch.from_numpy((_LEGENDRE[0] + 1) / 2)), Table(torch.from_numpy(_LEGENDRE[1] / 2))


class Linear:
    r"""The coefficient start + (end - start) t, for a volatility or drift that varies in time.

    Args:
        start: value at t = 0. end: value at t = 1.
    """

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = float(start), float(end)

    def __call__(self, t: Tensor) -> Tensor:
        return self.start + (self.end - self.start) * t


def logarithm(sde: SDE, needs: str, remedy: str) -> Logarithm:
    r"""The logarithm that the chart of a multiplicative process is.

    Args:
        sde: the process. needs: what needs it, the subject of the message. remedy: the message's last sentence.

    Raises:
        TypeError: an additive process.
    """
    found = sde.chart.as_log()
    if found is None:
        raise TypeError(
            f"{needs} needs a multiplicative process, whose chart is a logarithm, got {type(sde).__name__} with chart "
            f"{type(sde.chart).__name__}. {remedy}"
        )
    return found


def standardise(data_range: tuple[float, float] | None, offset: float) -> Affine:
    r"""The affine map that takes log(x + offset) to [-1, 1] for x in the range; the identity for None.

    Args:
        data_range: smallest and largest data value. offset: of the log chart.

    Raises:
        ValueError: not low < high and low + offset > 0.
    """
    if data_range is None:
        return Affine()
    if len(data_range) != 2 or not (-offset < data_range[0] < data_range[1] < math.inf):
        raise ValueError(
            f"data_range must be (low, high) with -offset < low < high, got data_range={data_range} with "
            f"offset={offset}. Use a larger offset for data that contain zeros."
        )
    low, high = (math.log(x + offset) for x in data_range)
    return Affine(scale=2 / (high - low), shift=-(high + low) / (high - low))


class Multiplicative(SDE):
    r"""Any process on log(x + offset): its noise is log-normal and proportional to x + offset.

        The chart is log, then `data_range` to [-1, 1], then the chart of the base; the parameters of the base are in
        the resulting coordinates.

    Args:
        base: an additive process.
        offset: c >= 0; needed for data with zeros. c = 1 on [0, 1] is nearly additive, c -> 0 truly multiplicative.
        data_range: smallest and largest data value, taken to [-1, 1]; None leaves log(x + offset) as it is.

    Raises:
        ValueError: offset < 0, a range that reaches x + offset <= 0, or a base with moments. TypeError: a base that
            is already on a log chart.

    Reference: Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730, for the Hyvarinen score of such processes.
    """

    def __init__(self, base: SDE, offset: float = 1.0, data_range: tuple[float, float] | None = None) -> None:
        if not isinstance(base, SDE) or base.chart.as_affine() is None:
            raise TypeError(
                f"base must be an additive process (an affine chart), got {type(base).__name__} "
                f"with chart {type(getattr(base, 'chart', None)).__name__}. Use one such as VE(0.01, 20.0)."
            )
        if bool(base.data_mean.any()) or bool(base.data_var.any()):
            raise ValueError(
                "base must have no moments of the data: in log coordinates the data have other moments. Call "
                "with_moments on the Multiplicative."
            )
        super().__init__(Compose(Log(offset), Compose(standardise(data_range, offset), base.chart)))
        self.base, self.offset, self.data_range = base, float(offset), data_range

    def alpha(self, t: Tensor | float) -> Tensor:
        return self.base.alpha(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.base.sigma(t)

    def shift(self, t: Tensor | float) -> Tensor:
        return self.base.shift(t)

    def variance(self, t: Tensor | float) -> Tensor:
        return self.base.variance(t)

    def _time_of(self, s: Tensor) -> Tensor:
        return self.base.time_of(s)


class GeometricBrownianMotion(SDE):
    r"""dX = mu X dt + vol X dW on X = x + offset.

        The kernel is built from m(t) and v(t), exactly for constants and by 48-point Gauss-Legendre quadrature for
        smooth functions: vol(t)^2 t is not int vol^2.
        v(1) should be about the squared largest distance between data in log space, or the prior should know the
        moments of the data (`with_moments`, in chart coordinates).

    Args:
        volatility: vol > 0, a constant or a function of t (a float64 tensor), in log units.
        drift: mu, a constant or a function of t; None is vol^2/2, for which m = 0.
        offset: c >= 0 of x + offset.
        data_range: smallest and largest data value, taken to [-1, 1] by the chart; None leaves log(x + offset) as it
            is.

    Raises:
        ValueError: a volatility or drift that is not finite, or a volatility that is not positive, somewhere in [0, 1].

    Reference: Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730, with vol = 0.8, offset 1 for images.
    """

    argument_attributes: ClassVar = {"drift": "drift_rate"}  # `drift` is the method

    def __init__(
        self,
        volatility: float | Coefficient = 0.8,
        drift: float | Coefficient | None = None,
        offset: float = 0.0,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        affine = standardise(data_range, offset)
        super().__init__(Compose(Log(offset), affine))
        self.volatility, self.drift_rate, self.scale = volatility, drift, affine.scale
        self.offset, self.data_range = float(offset), data_range
        self._check()

    def _check(self) -> None:
        t = torch.linspace(0, 1, 65, dtype=torch.float64, device="cpu")
        vol, log_drift = self._vol(t), self._log_drift(t)
        if not bool((vol.isfinite() & (vol > 0)).all()):
            raise ValueError(
                f"volatility must be > 0 and finite for t in [0, 1], got values from {vol.min():.4g} to "
                f"{vol.max():.4g}."
            )
        if not bool(log_drift.isfinite().all()):
            raise ValueError(
                f"drift must be finite for t in [0, 1], got values from {log_drift.min():.4g} to {log_drift.max():.4g} "
                "after volatility**2 / 2 is taken off. With drift=None the difference is 0."
            )

    def _vol(self, t: Tensor) -> Tensor:
        return _evaluate(self.volatility, t)

    def _log_drift(self, t: Tensor) -> Tensor:
        if self.drift_rate is None:
            return torch.zeros_like(t)
        return _evaluate(self.drift_rate, t) - self._vol(t) ** 2 / 2

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(as_time(t))

    def shift(self, t: Tensor | float) -> Tensor:
        return self.scale * _integral(self._log_drift, as_time(t))

    def variance(self, t: Tensor | float) -> Tensor:
        return self.scale**2 * _integral(lambda r: self._vol(r) ** 2, as_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.variance(t).sqrt()

    def _time_of(self, s: Tensor) -> Tensor:
        if callable(self.volatility):
            return super()._time_of(s)
        return (s / (self.scale * float(self.volatility))) ** 2

    def coefficients(self, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        t = as_time(t)
        return torch.zeros_like(t), self.scale * self._log_drift(t), (self.scale * self._vol(t)) ** 2


class GeometricOU(SDE):
    r"""d log X = -beta/2 (log X - mean) dt + sqrt(beta) dW on X = x + offset: its prior does not depend on the data.

        dX = X [beta/2 (1 + mean - log X)] dt + sqrt(beta) X dW,  beta linear in t.

    Args:
        beta_min: rate at t = 0. beta_max: rate at t = 1.
        mean: mean of the stationary law N(mean, 1) of log X.
        offset: c >= 0 of x + offset.
        data_range: smallest and largest data value, taken to [-1, 1] by the chart; None leaves log(x + offset) as it
            is.

    Raises:
        ValueError: not 0 < beta_min <= beta_max, or a mean that is not finite.
    """

    def __init__(
        self,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        mean: float = 0.0,
        offset: float = 0.0,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        affine = standardise(data_range, offset)
        super().__init__(Compose(Log(offset), affine))
        finite(mean=mean)
        self._path = VP(beta_min, beta_max)
        self.beta_min, self.beta_max, self.mean = float(beta_min), float(beta_max), float(mean)
        self.offset, self.data_range = float(offset), data_range
        self.scale, self._chart_mean = affine.scale, affine.scale * mean + affine.shift

    def alpha(self, t: Tensor | float) -> Tensor:
        return self._path.alpha(t)

    def shift(self, t: Tensor | float) -> Tensor:
        return self._chart_mean * (1 - self.alpha(t))

    def variance(self, t: Tensor | float) -> Tensor:
        return self.scale**2 * self._path.variance(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.scale * self._path.sigma(t)

    def _time_of(self, s: Tensor) -> Tensor:
        return self._path.time_of(s / self.scale)


def _evaluate(coefficient: float | Coefficient, t: Tensor) -> Tensor:
    if callable(coefficient):
        return as_time(coefficient(t)).expand_as(t)
    return torch.full_like(t, float(coefficient))


def _integral(function: Coefficient, t: Tensor) -> Tensor:
    r"""int_0^t function, shaped as t."""
    points = t[..., None] * _NODES.on(t.device)
    return t * (function(points) * _WEIGHTS.on(t.device)).sum(-1)
