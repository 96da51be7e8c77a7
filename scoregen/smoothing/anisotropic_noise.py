r"""Gaussian noise with a sigma of its own for each channel or pixel.

With S = diag(sigma), x + S eps is plain Gaussian noise eps on S^{-1} x. So Cohen's theorem holds for f~(v) = f(S v) at
v = S^{-1} x: the label is the same for all x' with ||S^{-1} (x' - x)||_2 < (Phi^{-1}(p_a) - Phi^{-1}(p_b)) / 2. That
ellipsoid has the volume of an l2 ball whose radius is m times as large, m the geometric mean of all sigma. The radius
here is that of the ball, in x's units, so that it is the radius of `Gaussian` where all sigma are equal.

Reference: Eiras et al. (2021), arXiv 2107.04570, "ANCER", sections 4 and 5 (the ellipsoid and its proxy radius).
"""

import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoregen.foreign import read_bytes
from scoregen.smoothing import draws
from scoregen.smoothing.bounds import safe
from scoregen.smoothing.noise import AbstractNoise, gaussian_probability, gaussian_radius

_SHOWN = 16  # numbers that stand in a record; of more, their shape and digest
_MOST_BYTES = 2**27  # of a file


class AnisotropicGaussian(AbstractNoise):
    r"""x + sigma eps, eps ~ N(0, I), with a sigma for each channel or each number of x. Norm scaled-l2.

        The label is the same for all x' with ||m (x' - x) / sigma||_2 < R, m the geometric mean of the sigma,
        R = m / 2 (Phi^{-1}(p_a) - Phi^{-1}(p_b)).

    R is the radius of the l2 ball of the same volume. The plain l2 ball inside has the radius R min(sigma) / m.

    Args:
        sigma: standard deviations, in the input's units: one for each channel (the first axis of x), or an array of x's
            shape; or a file FILE.npy of either.

    Raises:
        ValueError: values of sigma that are not positive numbers, or the file cannot be read.
    """

    norm, order = "scaled-l2", 2

    def __init__(self, sigma: Sequence[Any] | str | np.ndarray | Tensor) -> None:
        self.sigma, self._values = sigma, _numbers(sigma)
        self.geometric_mean = math.exp(float(self._values.log().mean()))
        self.step, self.reach = self.geometric_mean / 2, 2 * self.geometric_mean
        self._placed: dict[torch.device, Tensor] = {}

    def __repr__(self) -> str:
        if self._values.numel() <= _SHOWN:
            return f"{type(self).__name__}(sigma={self._values.tolist()})"
        shape = "x".join(map(str, self._values.shape))
        return f"{type(self).__name__}(sigma='{shape}, {self._digest}', geometric_mean={self.geometric_mean!r})"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(str(tuple(self._values.shape)).encode() + self._values.numpy().tobytes()).hexdigest()[:16]

    @property
    def distance(self) -> str:
        return f"l2 of {self.geometric_mean:.6g} x / sigma, sigma {self._digest}"

    def scale(self, x: Tensor, device: torch.device | None = None) -> Tensor:
        r"""sigma as float64 in the shape of an input (*S), or one that broadcasts to it."""
        place = x.device if device is None else device
        if place not in self._placed:
            self._placed[place] = self._values.to(place)
        found = self._placed[place]
        return found if found.ndim == x.ndim and found.ndim > 1 else found.view(-1, *[1] * (x.ndim - 1))

    def check(self, x: Tensor) -> None:
        shape, have = tuple(self._values.shape), tuple(x.shape)
        if shape != have and shape != have[:1]:
            raise ValueError(
                f"sigma must be one number for each of the {have[0] if have else 0} channels of x, or have its shape "
                f"{have}, got {shape}."
            )

    def sample(self, x: Tensor, m: int, generator: torch.Generator, strict: bool = True) -> Tensor:
        eps = draws.normal((m, *x.shape), generator, strict)
        return eps.mul_(self.scale(x, generator.device).to(eps.dtype)).add_(x.to(generator.device))

    def displaced(self, x: Tensor, z: Tensor) -> Tensor:
        return x + z * (self.scale(x.cpu()) / self.geometric_mean).to(x)

    def radius(self, p_a: float, p_b: float) -> float:
        return gaussian_radius(self.geometric_mean, p_a, p_b)

    def probability_for(self, radius: float) -> float:
        return gaussian_probability(self.geometric_mean, radius)

    def l2_radius(self, radius: float) -> float:
        r"""The radius of the largest plain l2 ball inside."""
        return radius * float(self._values.min()) / self.geometric_mean

    def log_volume(self, radius: float, numbers: int) -> float:
        r"""The logarithm of the certified volume of inputs of so many numbers: that of an l2 ball of the radius."""
        unit = numbers / 2 * math.log(math.pi) - math.lgamma(numbers / 2 + 1)
        return unit + numbers * math.log(radius) if radius > 0 else -math.inf

    def implies(self, radius: float) -> str:
        return f"l2 {safe(self.l2_radius(radius)):.12g}"


def _numbers(sigma: Sequence[Any] | str | np.ndarray | Tensor) -> Tensor:
    r"""Standard deviations as a float64 tensor on the CPU."""
    try:
        given: Any = _read(Path(sigma)) if isinstance(sigma, str) else sigma
        known = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
        found = torch.from_numpy(np.array(known, dtype=np.float64))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        rule = "sigma must be numbers, or a file FILE.npy of them"
        raise ValueError(f"{rule}, got sigma={sigma!r:.80} ({error}).") from None
    if found.ndim == 0:
        raise ValueError(
            f"sigma must be one number for each channel, or an array of x's shape, got sigma={float(found):g}. For one "
            f"number use Gaussian({float(found):g})."
        )
    if not found.numel() or not bool(((found > 0) & found.isfinite()).all()):
        raise ValueError(f"sigma must be > 0 and finite everywhere, got sigma={sigma!r:.80}.")
    return found


def _read(path: Path) -> np.ndarray:
    if path.suffix != ".npy":
        raise ValueError("its name must end with .npy")
    found: np.ndarray = np.load(io.BytesIO(read_bytes(path, _MOST_BYTES)), allow_pickle=False)
    if found.dtype.kind not in "iuf":
        raise ValueError(f"it holds {found.dtype}")
    return found
