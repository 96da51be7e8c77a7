r"""How much a Frechet distance varies over sets of generated images of one size.

    resample n rows with replacement -> d*_1, ..., d*_R;   interval = d + quantiles of (d* - mean d*)

Resampling adds a bias of its own, about as large as that of d from n images. So the interval is centred, and
mean d* - d is reported as an estimate of the bias. The reference is held fixed.
"""

from typing import NamedTuple

import torch

from scoregen.checks import inside, whole
from scoregen.metrics.distances import Features, feature_matrix
from scoregen.metrics.frechet import as_moments, frechet_distance, frechet_distance_gaussian
from scoregen.metrics.moments import Moments
from scoregen.parallel import gather, shard
from scoregen.rng import Stream, generator


class Interval(NamedTuple):
    r"""A value with the interval that other images of the same law would give, and its estimated bias."""

    value: float
    low: float
    high: float
    bias: float


def frechet_interval(
    generated: Features, reference: Features | Moments, resamples: int = 100, level: float = 0.95, seed: int = 0
) -> Interval:
    r"""The Frechet distance with a bootstrap interval over the generated images.

    Args:
        generated: (N, D); reference: (M, D) or moments.
        resamples: R >= 2, shared between the processes, each at the cost of a Frechet distance.
        level: level of the interval, in (0, 1).
        seed: seed of the resampling.

    Reference: Efron, Tibshirani (1993), "An introduction to the bootstrap", chapters 10 and 13.
    """
    whole(2, resamples=resamples)
    inside(0, 1, "()", level=level)
    x, target = feature_matrix(generated, "generated", least=2), as_moments(reference, "reference")
    value = frechet_distance(x, target)
    centre = x.mean(0)
    centred, mean, covariance = x - centre, target.mean.to(x.device), target.covariance
    found = {}
    for index in shard(range(resamples)):
        rows = torch.randint(len(x), (len(x),), generator=generator(seed, Stream.BOOTSTRAP, index)).to(x.device)
        weight = torch.bincount(rows, minlength=len(x)).to(x.dtype)
        shift = weight @ centred / len(x)
        scatter = (centred * weight[:, None]).T @ centred - len(x) * torch.outer(shift, shift)
        found[index] = frechet_distance_gaussian(centre + shift, scatter / (len(x) - 1), mean, covariance)
    everything = {index: d for part in gather(found) for index, d in part.items()}
    draws = torch.tensor([everything[index] for index in range(resamples)], dtype=torch.float64)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = (value + (draws - draws.mean()).quantile(tails)).tolist()
    return Interval(value, low, high, float(draws.mean()) - value)
