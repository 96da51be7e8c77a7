r"""How evenly the images of a generator change along a path between two noises.

    d_k = |x_{k+1} - x_k|_2,   x_k = G(slerp(z_a, z_b, k/10)),   k = 0..9
    ISTD = mean over pairs of std_k d_k,   CV = mean of std/mean,   largest/mean = mean of max/mean

ISTD alone can be gamed. Re-spacing the weights by image distance, without any training, removes most of it; a pixel
cross-fade scores 0; images that differ less have a smaller one. So it comes with numbers that show this: CV (free of
scale), the largest step over the mean one, the distance between the ends, the mean step, and the Frechet distance of
the midpoints to data.

Reference: Guo et al. (2024), arXiv 2312.04410, section 4.2.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from scoregen.checks import whole
from scoregen.data import Dataset
from scoregen.interruption import end_if_asked
from scoregen.metrics.extraction import Measured, extract_features
from scoregen.metrics.features import FeatureExtractor, Pixels
from scoregen.metrics.frechet import frechet_distance
from scoregen.metrics.reference import reference_features
from scoregen.metrics.report import Number
from scoregen.parallel import gather, shard
from scoregen.pictures import UNIT, Range
from scoregen.progress import progress
from scoregen.rng import Stream, generators, randn
from scoregen.samplers.inversion import Blend, slerp

Generate = Callable[[Tensor], Tensor]


class PathNumbers(TypedDict):
    r"""The numbers of `path_numbers`."""

    istd: float
    cv: float
    largest: float
    step: float


@dataclass(frozen=True)
class Smoothness:
    r"""The numbers of `istd`, means over pairs, in the units of the data.

    Attributes:
        istd: standard deviation (ddof 0) of the steps of a path.
        cv: standard deviation over mean.
        largest: largest step over the mean one.
        step: mean step.
        distance: between the ends.
        frechet: Frechet distance of the midpoints to the data.
        frechet_ends: of the first ends, for as many images as there are midpoints.
        midpoints: images (N, *S).
        protocol: everything that the numbers depend on.
    """

    istd: float
    cv: float
    largest: float
    step: float
    distance: float
    frechet: float
    frechet_ends: float
    midpoints: Tensor
    protocol: dict[str, Any]

    def numbers(self) -> list[Number]:
        r"""For a report."""
        name = self.protocol["features"]
        return [
            Number("ISTD", self.istd, "lower", note="std of the steps; can be gamed, so read it with the rows below"),
            Number("CV", self.cv, "lower", note="std / mean"),
            Number("largest/mean step", self.largest, "lower", floor=1.0),
            Number("mean step", self.step, "none"),
            Number("end-to-end distance", self.distance, "none"),
            Number(f"FD-{name} at midpoints", self.frechet, "lower"),
            Number(f"FD-{name} at ends", self.frechet_ends, "lower", note="first ends, same number of images"),
        ]


def istd(
    generate: Generate,
    data: Dataset,
    *,
    shape: tuple[int, ...] | None = None,
    pairs: int = 500,
    points: int = 11,
    seed: int = 0,
    blend: Blend = slerp,
    extractor: FeatureExtractor | None = None,
    batch_size: int = 50,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    data_range: Range | None = UNIT,
) -> Smoothness:
    r"""Interpolation standard deviation and the numbers without which it means little.

        Distances are Euclidean, over all pixels and channels in the units of the data, neither clamped nor rounded;
        for the Frechet distances images are clamped and rounded to 8 bits. A path has `points` equidistant weights,
        ends included. Its standard deviation has ddof 0; the result is the mean over pairs.

        The noises of pair i depend on (seed, i) alone, so that all models see the same ones. The sampler and
        its steps are those of `generate`; the paper uses DDIM with 50.

    Args:
        generate: standard normal noise (B, *S) to data: `samplers.from_noise.FromNoise`, for a pipeline followed by its
            decoder.
        data: the reference of the Frechet distances. shape: S of the noise; that of the data unless given.
        pairs: number of paths. points: images on each, >= 3.
        seed: seed of the noises. blend: of two noises.
        extractor: extractor of the features for the Frechet distances; pixels unless given.
        batch_size: pairs at a time. dtype, device: dtype and device of the noise.
        data_range: range of the units of images, which become 8 bits for the Frechet distances.

    Raises:
        ValueError: fewer than 2 pairs or 3 points.

    Reference: Guo et al. (2024), arXiv 2312.04410, section 4.2.
    """
    whole(2, pairs=pairs)
    whole(3, points=points)
    shape = tuple(data[:1][0].shape[1:]) if shape is None else tuple(shape)
    walked = _walk(generate, _Noises(shape, pairs, batch_size, seed, dtype, device), points, blend)
    features = _Features(Pixels() if extractor is None else extractor, data, data_range)
    return _smoothness(
        walked, features, {"points": points, "path": getattr(blend, "__name__", str(blend)), "seed": seed}
    )


@dataclass(frozen=True)
class _Noises:
    r"""The ends of all paths, `batch_size` pairs at a time."""

    shape: tuple[int, ...]
    pairs: int
    batch_size: int
    seed: int
    dtype: torch.dtype | None
    device: torch.device | str | None

    def batch(self, first: int) -> tuple[Tensor, Tensor]:
        r"""The two noises (B, *S) of the batch that begins with pair `first`."""
        size = min(self.batch_size, self.pairs - first)
        return noise_pairs(size, self.shape, self.seed, first, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class _Walked:
    r"""What is kept of all paths: steps (points - 1, N), ends apart (N,), midpoints (N, *S), end images (2, N, *S)."""

    steps: Tensor
    distances: Tensor
    midpoints: Tensor
    ends: Tensor


@dataclass(frozen=True)
class _Features:
    r"""Frechet distances to the data."""

    extractor: FeatureExtractor
    data: Dataset
    data_range: Range | None

    def distances(self, *images: Tensor) -> list[float]:
        r"""Of each set of images to the data."""
        real = reference_features(self.data, self.extractor, data_range=self.data_range)
        measured = (extract_features(self.extractor, Measured(some, self.data_range)) for some in images)
        return [frechet_distance(found, real) for found in measured]


def _walk(generate: Generate, noises: _Noises, points: int, blend: Blend) -> _Walked:
    r"""Goes along every path; the processes share the batches."""
    parts = {}
    for first in progress(shard(range(0, noises.pairs, noises.batch_size)), description="paths", unit="batch"):
        a, b = noises.batch(first)
        images = path_images(generate, a, b, points, blend).cpu()
        middle = generate(blend(a, b, 0.5)).cpu() if points % 2 == 0 else images[points // 2]
        parts[first] = (steps_of(images), _distance(images[0], images[-1]), middle, images[[0, -1]])
        end_if_asked()
    found = {first: part for some in gather(parts) for first, part in some.items()}
    return _Walked(*(torch.cat(x, dim=d) for x, d in zip(_sorted(found), (1, 0, 0, 1), strict=True)))


def _smoothness(walked: _Walked, features: _Features, settings: dict[str, Any]) -> Smoothness:
    r"""The numbers of the paths, with everything that they depend on."""
    frechet, frechet_ends = features.distances(walked.midpoints, walked.ends[0])
    protocol = {
        "pairs": len(walked.midpoints),
        **settings,
        "weights": "equidistant, ends included",
        "pixels": "units of the data, not clamped",
        "distance": "Euclidean",
        "std": "ddof 0, mean over pairs",
        "features": features.extractor.name,
        "midpoint_images": len(walked.midpoints),
    }
    return Smoothness(
        **path_numbers(walked.steps),
        distance=walked.distances.mean().item(),
        frechet=frechet,
        frechet_ends=frechet_ends,
        midpoints=walked.midpoints,
        protocol=protocol,
    )


def path_numbers(steps: Tensor) -> PathNumbers:
    r"""ISTD, CV, largest/mean and mean of steps (points - 1, B), means over paths; a constant path has CV 0."""
    std, mean = steps.std(0, correction=0), steps.mean(0)
    still = mean == 0
    safe = torch.where(still, 1.0, mean)
    largest = torch.where(still, 1.0, steps.amax(0) / safe)
    return PathNumbers(
        istd=std.mean().item(), cv=(std / safe).mean().item(), largest=largest.mean().item(), step=mean.mean().item()
    )


def steps_of(images: Tensor) -> Tensor:
    r"""Distances (points - 1, B) between neighbours on paths (points, B, *S), float64."""
    distances: Tensor = torch.linalg.vector_norm((images[1:] - images[:-1]).double().flatten(2), dim=2)
    return distances


def noise_pairs(
    pairs: int,
    shape: tuple[int, ...],
    seed: int = 0,
    first: int = 0,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""The two noises (pairs, *S) of pairs first, first + 1, ..."""
    ends = (generators(seed, Stream.PATHS, end, range(first, first + pairs)) for end in (0, 1))
    a, b = (randn((pairs, *shape), g, dtype, device) for g in ends)
    return a, b


def path_images(generate: Generate, a: Tensor, b: Tensor, points: int, blend: Blend = slerp) -> Tensor:
    r"""Images (points, B, *S) at equidistant weights between noises a and b (B, *S)."""
    return torch.stack([generate(blend(a, b, k / (points - 1))) for k in range(points)])


def constant_speed_path(
    generate: Generate, a: Tensor, b: Tensor, *, points: int = 11, probes: int = 11, blend: Blend = slerp
) -> tuple[Tensor, Tensor]:
    r"""Weights at which images change evenly: equal parts of the cumulative image distance over equidistant probes.

        Needs no training; its small ISTD shows that ISTD alone proves little.

    Args:
        generate, a, b, blend: as for `path_images`.
        points: images of the path, >= 2. probes: equidistant weights at which the distance is measured, >= 2.

    Returns:
        Weights (points, B), from 0 to 1, and images (points, B, *S).

    Raises:
        ValueError: fewer than 2 points or probes.
    """
    whole(2, points=points, probes=probes)
    found = path_images(generate, a, b, probes, blend)
    length = torch.cat([torch.zeros(1, len(a), dtype=torch.float64), steps_of(found.cpu()).cumsum(0)])
    weights = torch.stack([_inverse(column, points) for column in length.unbind(1)], dim=1)
    images = [
        generate(torch.cat([blend(a[i : i + 1], b[i : i + 1], w) for i, w in enumerate(row)]))
        for row in weights.tolist()
    ]
    return weights, torch.stack(images)


def _inverse(length: Tensor, points: int) -> Tensor:
    r"""Where a piecewise linear, increasing function on [0, 1] takes equidistant values."""
    if length[-1] == 0:
        return torch.linspace(0, 1, points, dtype=torch.float64)
    wanted = np.linspace(0, float(length[-1]), points)
    return torch.from_numpy(np.interp(wanted, length.numpy(), np.linspace(0, 1, len(length))))


def _distance(a: Tensor, b: Tensor) -> Tensor:
    distances: Tensor = torch.linalg.vector_norm((b - a).double().flatten(1), dim=1)
    return distances


def _sorted(found: Mapping[int, tuple[Tensor, ...]]) -> list[list[Tensor]]:
    return [list(column) for column in zip(*(found[first] for first in sorted(found)), strict=True)]


def as_row(found: Smoothness) -> dict[str, float]:
    r"""The numbers alone."""
    return {k: v for k, v in asdict(found).items() if isinstance(v, float)}
