r"""Features of many images, batch by batch, shared between processes; and the conversions between uint8 and [0, 1]."""

import torch
from torch import Tensor

from scoregen.interruption import end_if_asked
from scoregen.metrics.distances import feature_matrix
from scoregen.metrics.features import FeatureExtractor
from scoregen.parallel import gather, shard
from scoregen.progress import progress


def extract_features(
    extractor: FeatureExtractor, images: Tensor, batch_size: int = 250, device: torch.device | str = "cpu"
) -> Tensor:
    r"""Features of many images, batch by batch, shared between the processes.

    Args:
        extractor: of the features.
        images: (N, C, H, W), float in [0, 1] or uint8.
        batch_size: images at a time.
        device: where the extractor runs.

    Returns:
        (N, D) float64 on the CPU, in the order of the images.
    """
    starts = shard(range(0, len(images), batch_size))
    return in_order(gather(features_at(extractor.to(device), images, starts, batch_size, device)), extractor.name)


def features_at(
    extractor: FeatureExtractor, images: Tensor, starts: list[int], batch_size: int, device: torch.device | str = "cpu"
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
