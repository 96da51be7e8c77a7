r"""Paths: y_t = alpha(t) y_0 + shift(t) + sigma(t) eps with t in [0, 1], t = 0 data, t = 1 noise.

Everything else follows from the three functions:

    u = (y_t - shift)/alpha = y_0 + s eps,   s = sigma/alpha      (EDM coordinates)
    dy = (f y + h) dt + g dW,   f = alpha'/alpha,   h = shift' - f shift,   g^2 = (sigma^2)' - 2 f sigma^2

Coefficients are float64 and stay where their time is: a number and a tensor on the CPU give one on the CPU, times (B,)
on an accelerator (as the losses draw them) stay there, so that nothing is copied and nothing waits for the device.
There, where a look at a value would wait, what is out of range becomes nan instead of an error.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

# Sampling runs between these noise ratios where a path goes on to 0 or beyond all data (of about unit scale).
SMALLEST_NOISE, LARGEST_NOISE = 2e-3, 200.0

TensorLike = Tensor | float | Sequence[float] | Sequence[Sequence[float]]


def as_time(t: TensorLike) -> Tensor:
    r"""A time, noise ratio or other coefficient as a float64 tensor: a tensor where it is, all else on the CPU."""
    if isinstance(t, Tensor):
        return t.to(torch.float32 if t.device.type == "mps" else torch.float64)  # no float64 on MPS
    return torch.as_tensor(t, dtype=torch.float64, device="cpu")


def readable(coefficient: Tensor) -> bool:
    r"""Whether a look at its values waits for no device."""
    return coefficient.device.type == "cpu"


def checked_time(t: TensorLike) -> Tensor:
    r"""A time as `as_time`; ValueError outside [0, 1], on an accelerator nan."""
    t = as_time(t)
    inside = (t >= 0) & (t <= 1)
    if not readable(t):
        return torch.where(inside, t, math.nan)
    if not bool(inside.all()):
        raise ValueError(
            f"t must lie in [0, 1], from data to noise, got t from {t.min().item():.6g} to {t.max().item():.6g}. A "
            "timestep k of N is t = k/N."
        )
    return t


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    r"""A coefficient of shape () or (B,) shaped and cast to multiply x (B, *S).

    A single number stays on the CPU, from where it takes part in sums and products on any device without a copy.
    """
    if x.ndim == 0:
        return coefficient
    if coefficient.ndim == 0 and readable(coefficient):
        return coefficient.to(x.dtype)
    return coefficient.reshape(-1, *[1] * (x.ndim - 1)).to(device=x.device, dtype=x.dtype)


class Table:
    r"""Numbers of a process, float64 on the CPU, and their copies on other devices, each made once.

    Args:
        values: any shape.
    """

    def __init__(self, values: TensorLike) -> None:
        self.values = as_time(values).cpu()
        self._copies: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        r"""The numbers on a device, and a single number as it is, see `expand`."""
        if device.type == "cpu" or self.values.ndim == 0:
            return self.values
        if device not in self._copies:
            with torch.inference_mode(False):  # a later training may meet what is kept
                dtype = torch.float32 if device.type == "mps" else torch.float64
                self._copies[device] = self.values.to(dtype).to(device)
        return self._copies[device]


def derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    r"""d function / dt for an elementwise function, by automatic differentiation."""
    with torch.inference_mode(False), torch.enable_grad():
        t = t.detach().clone().requires_grad_()
        value = function(t)
        if not value.requires_grad:
            return torch.zeros_like(t)
        (slope,) = torch.autograd.grad(value.sum(), t)
        return slope


def inverse(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    r"""The t in [0, 1] at which an increasing elementwise function has a value, by bisection to 2^-64."""
    low, high = torch.zeros_like(value), torch.ones_like(value)
    for _ in range(64):
        middle = (low + high) / 2
        above = function(middle) > value
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


def normal_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    r"""log N(x; mean, std^2) summed over the dimensions of each sample, (B,).

    Args:
        x: (B, *S). mean, std: of every number, shapes that broadcast to x.
    """
    log_density = -(((x - mean) / std) ** 2) / 2 - std.log() - math.log(2 * math.pi) / 2
    return log_density.flatten(1).sum(1)


class Path(ABC):
    r"""A Gaussian path given by alpha, sigma and, where it has one, shift."""

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        r"""The factor of y_0, shaped as t."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        r"""The standard deviation of the noise, shaped as t."""

    def shift(self, t: Tensor | float) -> Tensor:
        r"""The deterministic displacement, shaped as t; zero unless overridden."""
        return torch.zeros_like(as_time(t))

    def variance(self, t: Tensor | float) -> Tensor:
        r"""sigma^2, shaped as t; a path whose sigma is a root overrides it, since the root has no derivative at 0."""
        return self.sigma(t) ** 2

    def noise_ratio(self, t: Tensor | float) -> Tensor:
        r"""s(t) = sigma/alpha, increasing, shaped as t; infinite where alpha is 0."""
        return self.sigma(t) / self.alpha(t)

    def time_of(self, s: Tensor | float) -> Tensor:
        r"""The inverse of `noise_ratio`.

        Args:
            s: noise ratio, () or (B,), between noise_ratio(0) and noise_ratio(1).

        Returns:
            t in [0, 1], shaped as s.

        Raises:
            ValueError: when s is outside the range of the path; on an accelerator such an s gives nan.
        """
        s = as_time(s)
        low, high = self.noise_ratio(0.0).item(), self.noise_ratio(1.0).item()
        inside = (s >= low * (1 - 1e-9)) & (s <= high * (1 + 1e-9))
        if not readable(s):
            return torch.where(inside, self._time_of(s.clamp(low, high)).clamp(0.0, 1.0), math.nan)
        if not bool(inside.all()):
            raise ValueError(
                f"s must lie between noise_ratio(0)={low:.6g} and noise_ratio(1)={high:.6g} of {type(self).__name__}, "
                f"got s from {s.min().item():.6g} to {s.max().item():.6g}."
            )
        return self._time_of(s.clamp(low, high)).clamp(0.0, 1.0)

    def _time_of(self, s: Tensor) -> Tensor:
        r"""`time_of` for s in the range; a path that knows a formula overrides it."""
        return inverse(self.noise_ratio, s)

    def coefficients(self, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        r"""f, h and g^2 of dy = (f y + h) dt + g dW, each shaped as t."""
        t = as_time(t)
        f = derivative(self.alpha, t) / self.alpha(t)
        h = derivative(self.shift, t) - f * self.shift(t)
        g2 = derivative(self.variance, t) - 2 * f * self.variance(t)
        return f, h, g2

    @cached_property
    def s_min(self) -> float:
        r"""The smallest noise ratio at which samplers call the denoiser."""
        own = self.noise_ratio(0.0).item()
        return own if own > 0 else min(SMALLEST_NOISE, self.noise_ratio(1.0).item() / 10)

    @cached_property
    def s_max(self) -> float:
        r"""The noise ratio at which sampling starts: that of t = 1, on paths that erase the data at most 200."""
        own = self.noise_ratio(1.0).item()
        return own if self.alpha(1.0) == 1 else min(own, LARGEST_NOISE)
