r"""Training on images with Gaussian noise alone, whose standard deviation is known.

    y = x + sigma e;  tau^2 = a/(1 - a), z ~ N(0, I):     y1 = y + sigma tau z,   y2 = y - sigma z/tau

y1 and y2 are independent given x, of variances sigma^2/(1 - a) and sigma^2/a; one is predicted from the other.

Reference: Pang, Zheng, Quan, Ji (2021), Recorrupted-to-recorrupted: unsupervised deep learning for image denoising,
CVPR.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from scoregen import checks
from scoregen.losses.splitting import Halves, Splitting, check_levels
from scoregen.losses.weightings import Weighting
from scoregen.rng import Generators, randn
from scoregen.sde.path import as_time, expand
from scoregen.sde.process import SDE


class GaussianSplit(Splitting):
    r"""Training of denoisers on noisy data (B, *S) alone.

    Args:
        sigma: standard deviation of their noise, in units of the data, > 0.
        split: smallest and largest fraction a of the information that goes to the target.
        label_dropout: probability of training a sample without its label. weighting: w(s); EDM's unless given.

    Raises:
        ValueError: values out of range; in `begin`, noise beyond the process. TypeError: a model whose chart is not
            affine.
    """

    def __init__(
        self,
        sigma: float,
        split: Sequence[float] = (0.1, 0.9),
        label_dropout: float = 0.1,
        weighting: Weighting | None = None,
    ) -> None:
        super().__init__(split, label_dropout, weighting)
        checks.positive(sigma=sigma)
        self.sigma = float(sigma)

    def least_s(self, sde: SDE) -> float:
        return noise_ratio_of(sde, self.sigma, type(self).__name__) / math.sqrt(1 - self.split[0])

    def begin(self, model: Any) -> None:
        s = noise_ratio_of(model.sde, self.sigma, type(self).__name__)
        low, high = (s / (1 - a) ** 0.5 for a in self.split)
        check_levels(model.sde, low, high, f"Give a sigma_max of the process above {high:.3g}, or a lower split.")

    def halves(self, sde: SDE, x: Tensor, fraction: Tensor, generator: Generators) -> Halves:
        s, a = noise_ratio_of(sde, self.sigma, type(self).__name__), as_time(fraction)
        y, z = sde.to_chart(x), randn(x.shape, generator, x.dtype, x.device)
        tau = (a / (1 - a)).sqrt()
        return Halves(y + expand(s * tau, y) * z, s / (1 - a).sqrt(), y - expand(s / tau, y) * z, s / a.sqrt())

    def squared_error(self, sde: SDE, denoised: Tensor, target: Tensor) -> Tensor:
        return (denoised - target).square()


def noise_ratio_of(sde: SDE, sigma: float, name: str) -> float:
    r"""The noise ratio that a standard deviation in units of the data is.

    Raises:
        TypeError: the chart is not affine.
    """
    affine = sde.chart.as_affine()
    if affine is None:
        raise TypeError(
            f"{name} needs an additive process, got {type(sde).__name__} with chart {type(sde.chart).__name__}. Choose "
            "loss=speckle_split for multiplicative noise."
        )
    return affine.scale * sigma
