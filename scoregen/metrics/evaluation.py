r"""An evaluation: generated images against a data set in the features of one extractor, each number beside its floor.

reference = the training part      floor = the same number for held-out images in place of generated ones
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoregen.data import Source
from scoregen.metrics.extraction import extract_features, uint8_round_trip
from scoregen.metrics.features import FeatureExtractor
from scoregen.metrics.measurement import Measurement, Settings
from scoregen.metrics.reference import reference_features
from scoregen.metrics.report import Report


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
        generated: (N, C, H, W), float in [0, 1] or uint8; or vectors (N, D) with `Pixels`.
        source: the data set; its training part is the reference, its test part gives the floor.
        extractor: of the features.
        settings: of the measurement; the defaults of `Settings` unless given.
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
    size, uint8 = settings.batch_size, settings.uint8 and generated.ndim == 4
    training, held_out = (
        reference_features(part, extractor, cache, uint8, batch_size=size, device=device)
        for part in (source.train, source.test)
    )
    features = extract_features(extractor, uint8_round_trip(generated) if uint8 else generated, size, device)
    measured = Measurement(settings, features, training, held_out, extractor)
    numbers = measured.numbers()
    facts = {"data": source.name, "data_hash": source.train.fingerprint(), "uint8_round_trip": uint8}
    return Report(numbers, measured.protocol() | facts | (protocol or {}), measured.details, measured.warnings())
