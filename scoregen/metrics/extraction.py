r"""Features of many images, batch by batch, shared between processes; and the conversions between uint8 and [0, 1]."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scoregen.data import Dataset
from scoregen.interruption import end_if_asked
from scoregen.metrics.distances import feature_matrix
from scoregen.metrics.features import FeatureExtractor
from scoregen.parallel import gather, shard
from scoregen.pictures import UNIT, Range, fractions, has_ends
from scoregen.progress import progress


@dataclass(frozen=True)
class Measured:
    r"""Samples as an extractor takes them, read a batch at a time: images as fractions of their range.

        Vectors, and images whose range has no ends, are as they are. Bytes are fractions of 255, whatever the range.

    Args:
        samples: (N, *S) uint8 or in the units of the data; or a part of a data set, which is never read as a whole.
        data_range: range of the units.
        uint8: round images to 8 bits, as a file does.
    """

    samples: Tensor | Dataset
    data_range: Range | None = UNIT
    uint8: bool = True

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, places: slice) -> Tensor:
        x = self.samples[places] if isinstance(self.samples, Tensor) else self.samples[places][0]
        if x.dtype == torch.uint8 or x.ndim != 4 or self.data_range is None or not has_ends(self.data_range):
            return x
        x = fractions(x, self.data_range)
        return uint8_round_trip(x) if self.uint8 else x


def extract_features(
    extractor: FeatureExtractor,
    images: Tensor | Measured,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
) -> Tensor:
    r"""Features of many images, batch by batch, shared between the processes.

    Args:
        extractor: extractor of the features.
        images: (N, C, H, W), float in [0, 1] or uint8; or samples that are read a batch at a time.
        batch_size: images at a time.
        device: where the extractor runs.

    Returns:
        (N, D) float64 on the CPU, in the order of the images.
    """
    starts = shard(range(0, len(images), batch_size))
    return in_order(gather(features_at(extractor.to(device), images, starts, batch_size, device)), extractor.name)


def features_at(
    extractor: FeatureExtractor,
    images: Tensor | Measured,
    starts: list[int],
    batch_size: int,
    device: torch.device | str = "cpu",
) -> dict[int, Tensor]:
    r"""The features of the batches that begin at these places, on the CPU."""
    found = {}
    for start in progress(starts, description=f"features {extractor.name}", unit="batch"):
        found[start] = extractor(as_unit(images[start : start + batch_size]).to(device)).cpu()
        end_if_asked()
    return found


def in_order(parts: list[dict[int, Tensor]], name: str) -> Tensor:
    r"""The parts of all processes as one float64 matrix."""
    batches = {start: features for part in parts for start, features in part.items()}
    return feature_matrix(torch.cat([batches[start] for start in sorted(batches)]), f"{name} features")


def as_unit(images: Tensor) -> Tensor:
    r"""Float images in [0, 1]: uint8 ones are divided by 255."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def uint8_round_trip(images: Tensor) -> Tensor:
    r"""The uint8 images that a file would hold: clamped to [0, 1], times 255, rounded to the nearest.

    Raises:
        ValueError: values that are not finite, which a file would show as black.
    """
    if images.dtype == torch.uint8:
        return images
    bad = int((~images.reshape(len(images), -1).isfinite().all(1)).sum())
    if bad:
        raise ValueError(f"images must be finite, got {bad} of {len(images)} with NaN or infinity. Check the sampler.")
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)
