r"""Values that were rounded and cut when they were recorded, of a scene as it is or with speckle.

With speckle the intensity I before the rounding is drawn too, which leaves the chain exact:

    I ~ Gamma(L, x/L) cut to what rounds to the value,    then z as for I
"""

import math

import torch
from torch import Tensor

from scoregen.checks import positive
from scoregen.samplers.inverse_cdf import REACH, inverse_cdf
from scoregen.samplers.pixel_axis import LogAxis
from scoregen.samplers.pixel_observation import PixelObservation, Uniform, speckled


class Quantised(PixelObservation):
    r"""Values rounded to multiples of a step and cut at both ends, as in 8-bit pictures.

        A value r says that step/2 around it was recorded; the lowest says "at most", the highest "at least". What was
        recorded is x itself, or with `looks` x with speckle: so a zero needs no floor, and a saturated pixel may be
        brighter.

    Args:
        step: between neighbouring values, > 0. low, high: the lowest and the highest value.
        looks: looks of speckle before the rounding; None: none.

    Raises:
        ValueError: a step that does not fit; in use, values outside [low, high] or between the steps.
    """

    def __init__(self, step: float = 1 / 255, low: float = 0.0, high: float = 1.0, looks: float | None = None) -> None:
        positive(step=step)
        if not step <= high - low < math.inf:
            raise ValueError(f"step must be at most high - low, got step={step}, low={low}, high={high}.")
        if looks is not None:
            positive(looks=looks)
            if low < 0:
                raise ValueError(f"low must be >= 0 for intensities with speckle, got low={low}.")
        self.step, self.low, self.high, self.looks = float(step), float(low), float(high), looks
        self.possible = self.low

    def check(self, observed: Tensor) -> None:
        steps = (observed[~observed.isnan()] - self.low) / self.step
        top = (self.high - self.low) / self.step
        off = 0.01 + 4 * torch.finfo(observed.dtype).eps * top  # rounding of the values, their difference and quotient
        bad = ~((steps > -off) & (steps < top + off)) | ((steps - steps.round()).abs() > off) & (steps < top - off)
        if bool(bad.any()):
            value = self.low + self.step * steps[bad][0].item()
            raise ValueError(
                f"observed values must be low={self.low:g} + k step={self.step:g} up to high={self.high:g} (NaN where "
                f"they are missing), got {int(bad.sum())} of {observed.numel()} that are not (first: {value:.6g}). "
                "State the steps of the recording."
            )

    def bounds(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        r"""What was recorded lay between these two, which may be infinite."""
        half = self.step / 2
        below = torch.where(observed < self.low + half, -math.inf, observed - half)
        return below, torch.where(observed > self.high - half, math.inf, observed + half)

    def first(self, observed: Tensor) -> Tensor:
        return observed.clamp_min(self.low + self.step / 4)

    def draw(self, observed: Tensor, z: Tensor, y: Tensor, rho: float, axis: LogAxis, uniform: Uniform) -> Tensor:
        if self.looks is None:
            return self._within(observed, y, rho, axis, uniform(y))
        log_intensity = self._recorded(observed, axis.v(z), self.looks, uniform(y))
        return speckled(log_intensity, self.looks, y, rho, axis, uniform(y))

    def confine(self, observed: Tensor, y: Tensor, rho: float, axis: LogAxis, uniform: Uniform) -> Tensor:
        if self.looks is not None:
            return y
        low, high = (axis.of_x(bound) for bound in self.bounds(observed))
        return torch.where((y >= low) & (y <= high), y, self._within(observed, y, rho, axis, uniform(y)))

    def _within(self, observed: Tensor, y: Tensor, rho: float, axis: LogAxis, uniform: Tensor) -> Tensor:
        r"""N(y, rho^2) cut to the interval."""
        low, high = (axis.of_x(bound) for bound in self.bounds(observed))
        far = REACH * rho
        start = torch.maximum(low, torch.minimum(high, y) - far)
        end = torch.minimum(high, torch.maximum(low, y) + far)
        return inverse_cdf(lambda z, y: -(((z - y) / rho) ** 2) / 2, (y,), start, end, uniform)

    def _recorded(self, observed: Tensor, v: Tensor, looks: float, uniform: Tensor) -> Tensor:
        r"""log I ~ Gamma(L, x/L) cut to the interval: log density L (d - e^d), d = log I - v."""
        low, high = (bound.clamp_min(0).log() - v for bound in self.bounds(observed))
        mode = torch.minimum(torch.maximum(low, torch.zeros_like(v)), high)
        start = torch.maximum(low, mode - 45 / looks - 1)
        end = torch.minimum(high, mode + math.log(2 + 90 / looks))
        return v + inverse_cdf(lambda d: looks * (d - d.exp()), (), start, end, uniform)
