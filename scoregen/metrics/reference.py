r"""Features of a data set, computed once: a file for each (data, extractor, conversion), named by their hashes."""

from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from scoregen.data import Dataset
from scoregen.metrics.extraction import Measured, extract_features
from scoregen.metrics.features import FeatureExtractor
from scoregen.parallel import barrier, gather, rank
from scoregen.pictures import UNIT, Range
from scoregen.storage import sync, write_atomically


def reference_features(
    data: Dataset,
    extractor: FeatureExtractor,
    cache: Path | None = None,
    uint8: bool = True,
    *,
    data_range: Range | None = UNIT,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
) -> Tensor:
    r"""Features (N, D) of all samples of a data set, which is read a batch at a time.

    Args:
        data: a hash of their content is part of the file's name.
        extractor: its hash is part of the file's name.
        cache: folder of the files; None: always computed.
        uint8: round images to 8 bits first, as generated ones are.
        data_range: range of the units of images.
        batch_size, device: as in `extract_features`.
    """
    images = Measured(data, data_range, uint8)
    if cache is None:
        return extract_features(extractor, images, batch_size, device)
    kind = ("uint8" if uint8 else "float") + ("" if data_range == UNIT else f"-{data_range}".replace(" ", ""))
    file = cache / f"{extractor.name}-{extractor.hash}-{data.fingerprint()}-{kind}.safetensors"
    kept = _read(file)
    if all(gather(kept is not None)) and kept is not None:
        return kept
    features = extract_features(extractor, images, batch_size, device)
    if rank() == 0:
        _write(file, features)
    barrier()
    return features


def _read(file: Path) -> Tensor | None:
    r"""The features of a file; None if it is missing or damaged, so that it is written anew."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)["features"].double()
    except (OSError, KeyError, SafetensorError):
        return None


def _write(file: Path, features: Tensor) -> None:
    from safetensors.torch import save_file

    def write(opened: IO[bytes]) -> None:
        save_file({"features": features.contiguous()}, opened.name)  # by name: as bytes they would take memory twice
        sync(Path(opened.name))  # safetensors may have put another file of that name there

    write_atomically(file, write)
