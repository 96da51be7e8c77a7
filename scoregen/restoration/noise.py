r"""What a restoration removes: speckle, which multiplies an intensity, or the noise of counts.

    L looks of speckle      I / X                            mean 1, variance 1/L     (ratio image)
    counts of gain g        (I - X) / sqrt(g X)              mean 0, variance 1       (Pearson's residual)

Both tell whether a result X is the scene behind the recorded I without a clean image.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from scipy.stats import gamma
from torch import Tensor

from scoregen.metrics.speckle import RatioImage, equivalent_looks, ratio_statistics, statistics

T = TypeVar("T")
BRIGHT = 0.99  # quantile that stands for the bright end of images


@dataclass(frozen=True)
class Noise(ABC):
    r"""Noise of independent pixels; intensities are in the units of the training data, NaN without data."""

    legend: ClassVar[str]

    @abstractmethod
    def bright(self, quantile: float, scale: float) -> float:
        r"""The bright end of scenes, of the 99 % quantile of what was recorded.

        Args:
            quantile: intensity. scale: value in the files of an intensity of 1.
        """

    @abstractmethod
    def measures(self, x: Tensor, y: Tensor, scale: float) -> dict[str, float]:
        r"""Numbers by name, of images before and after (..., H, W); NaN where they are too small."""

    @abstractmethod
    def picture(self, x: Tensor, y: Tensor, scale: float) -> Tensor:
        r"""What was removed, black 0 and white 1, .5 where nothing was."""

    @abstractmethod
    def says(self, medians: dict[str, float]) -> str:
        r"""A line on medians of the measures."""

    @abstractmethod
    def explained(self) -> str:
        r"""What the measures mean, for a page."""


@dataclass(frozen=True)
class Speckle(Noise):
    r"""Speckle.

    Args:
        looks: > 0.
    """

    legend = "ratio before / after: black 0, grey 1, white from 2"
    looks: float

    def bright(self, quantile: float, scale: float) -> float:
        return quantile / float(gamma.ppf(BRIGHT, self.looks) / self.looks)

    def measures(self, x: Tensor, y: Tensor, scale: float) -> dict[str, float]:
        ratio = measured(lambda: ratio_statistics(x, y), RatioImage(math.nan, math.nan, math.nan))
        return {
            "looks_before": measured(lambda: equivalent_looks(x).value, math.nan),
            "looks_after": measured(lambda: equivalent_looks(y).value, math.nan),
            "ratio_mean": ratio.mean,
            "ratio_variance": ratio.variance,
            "ratio_correlation": ratio.correlation,
        }

    def picture(self, x: Tensor, y: Tensor, scale: float) -> Tensor:
        return x / y / 2

    def says(self, medians: dict[str, float]) -> str:
        return (
            f"equivalent looks {medians['looks_before']:.3g} -> {medians['looks_after']:.3g}; ratio image: mean "
            f"{medians['ratio_mean']:.3g} (1 is right), variance {medians['ratio_variance']:.3g} ({1 / self.looks:.3g})"
            f", correlation {medians['ratio_correlation']:.2g} (0)"
        )

    def explained(self) -> str:
        return (
            "A ratio image, speckled over restored, is pure speckle where the restored scene is right: mean 1, variance"
            f" 1/{self.looks:.3g} = {1 / self.looks:.3g}, no structure. A smaller variance: speckle is left. A larger "
            "one, or structure: parts of the scene are lost. An estimate from the image itself takes up some of its "
            "speckle, so that a somewhat smaller variance is right. Edges: correlation of the Laplacians of the "
            "logarithms before and after; speckle counts as edges."
        )


@dataclass(frozen=True)
class Counts(Noise):
    r"""The noise of counts.

    Args:
        gain: value of one count in the files.
    """

    legend = "(before - after) / noise of the counts: black -3, grey 0, white 3"
    gain: float

    def bright(self, quantile: float, scale: float) -> float:
        root = math.sqrt(quantile * scale / self.gain)  # its deviation is 1/2, and 2.33 of them are the quantile's
        return max(root - 1.16, root / 2) ** 2 * self.gain / scale

    def measures(self, x: Tensor, y: Tensor, scale: float) -> dict[str, float]:
        found = measured(lambda: statistics(self.residual(x, y, scale)), RatioImage(math.nan, math.nan, math.nan))
        return {
            "residual_mean": found.mean,
            "residual_variance": found.variance,
            "residual_correlation": found.correlation,
        }

    def residual(self, x: Tensor, y: Tensor, scale: float) -> Tensor:
        r"""(I - X) / sqrt(g X), NaN where X is not > 0."""
        valid = y > 0
        return torch.where(valid, (x - y) / (self.gain / scale * torch.where(valid, y, 1.0)).sqrt(), math.nan)

    def picture(self, x: Tensor, y: Tensor, scale: float) -> Tensor:
        return self.residual(x, y, scale) / 6 + 0.5

    def says(self, medians: dict[str, float]) -> str:
        return (
            f"residual of the counts over their noise: mean {medians['residual_mean']:.3g} (0 is right), variance "
            f"{medians['residual_variance']:.3g} (1), correlation {medians['residual_correlation']:.2g} (0)"
        )

    def explained(self) -> str:
        return (
            "A residual, counts less restored over the square root of restored, is pure noise where the restored scene "
            "is right: mean 0, variance 1, no structure. A smaller variance: noise is left. A larger one, or structure:"
            " parts of the scene are lost. Whole counts in the result add a twelfth of a count to it. Edges: "
            "correlation of the Laplacians of the logarithms before and after; noise counts as edges."
        )


def measured(compute: Callable[[], T], otherwise: T) -> T:
    r"""A measure, or the value that stands for one that an image does not have."""
    try:
        return compute()
    except ValueError:  # too small an image, or without valid pixels
        return otherwise
