r"""An evaluation: generated images against a data set in the features of one extractor, each number beside its floor.

reference = the training part      floor = the same number for held-out images in place of generated ones

Of data that have one part alone (data.test=all, data.test=none) that part is the reference, and there is no floor.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoregen.data import Source
from scoregen.metrics.extraction import Measured, extract_features
from scoregen.metrics.features import FeatureExtractor
from scoregen.metrics.measurement import Measurement, Settings
from scoregen.metrics.reference import reference_features
from scoregen.metrics.report import Report
from scoregen.pictures import has_ends


def evaluate(
    generated: Tensor,
    source: Source,
    extractor: FeatureExtractor,
    settings: Settings | None = None,
    *,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    protocol: dict[str, Any] | None = None,
) -> Report:
    r"""Measures generated samples against a data set.

    Args:
        generated: (N, C, H, W), uint8, or float in the units of the data; or vectors (N, D) with `Pixels`.
        source: the data set; its training part is the reference, its test part gives the floor.
            Both are read a batch at a time.
        extractor: extractor of the features.
        settings: settings of the measurement; the defaults of `Settings` unless given.
        cache: folder for the features of the data, or None.
        device: where the extractor runs.
        protocol: origin of the samples (sampler, calls, seed), added to the report.

    Raises:
        ValueError: samples and data differ in shape.
    """
    settings = settings or Settings()
    if generated.shape[1:] != source.shape:
        raise ValueError(
            f"samples must have the shape of the data, got {tuple(generated.shape[1:])} and "
            f"{source.shape} of {source.name}. Choose the data that their model was trained on."
        )
    size, uint8 = settings.batch_size, settings.uint8 and generated.ndim == 4 and has_ends(source.range)
    parts = [part for part in (source.part("train"), source.part("test")) if part is not None]
    known = [
        reference_features(part, extractor, cache, uint8, data_range=source.range, batch_size=size, device=device)
        for part in parts
    ]
    features = extract_features(extractor, Measured(generated, source.range, uint8), size, device)
    measured = Measurement(settings, features, known[0], known[1] if len(known) > 1 else None, extractor)
    numbers, warnings = measured.numbers(), measured.warnings()
    if generated.ndim == 4 and not has_ends(source.range):
        warnings.append(f"the range of {source.name} has no ends: images are measured in their own units, not rounded.")
    facts = {"data": source.name, "data_hash": parts[0].fingerprint(), "uint8_round_trip": uint8}
    facts |= {"range": source.range} if generated.ndim == 4 else {}
    return Report(numbers, measured.protocol() | facts | (protocol or {}), measured.details, warnings)
