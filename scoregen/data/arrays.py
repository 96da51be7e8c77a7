r"""Data from NumPy archives."""

from pathlib import Path

import numpy as np
import torch

from scoregen import checks
from scoregen.data.augment import Augmentation
from scoregen.data.base import ArrayDataset, Source, split
from scoregen.data.bounds import MOST_BYTES, check_labels
from scoregen.data.files import read_archive
from scoregen.errors import UserError


class Npz(Source):
    r"""A NumPy archive with `train_images` (N, H, W[, C]); optionally `train_labels`, `test_images`, `test_labels`.

    uint8 images are read as x/255, floats as they are. A table (N, D) under `train_images` or `x` is read as vectors.
    The range is (0, 1) for bytes, and for float images whose values all lie there; it is None for all other data.

    Args:
        path: the file.
        augmentation: applied to training batches.
        max_bytes: that any array may unpack to; one that is usually compressed, or not at all, may be larger.

    Raises:
        UserError: the file is missing or damaged, or its parts are empty or of different shapes or types.
    """

    def __init__(self, path: str, augmentation: Augmentation | None = None, max_bytes: int = MOST_BYTES) -> None:
        super().__init__(augmentation)
        checks.whole(1, max_bytes=max_bytes)
        self.path, self.name, self.max_bytes = path, Path(path).stem, max_bytes
        parts = {"train": self.load(train=True), "test": self.load(train=False)}
        kinds = {name: (tuple(part.x.shape[1:]), part.x.dtype) for name, part in parts.items()}
        if min(map(len, parts.values())) < 1 or kinds["train"] != kinds["test"]:
            found = ", ".join(f"{name}: {len(part)} of {kinds[name]}" for name, part in parts.items())
            raise UserError(f"data.path: both parts of '{path}' must hold images of one shape and type, got {found}.")
        labels = [part.label for part in parts.values() if part.label is not None and len(part.label)]
        self.num_classes = max(int(label.max()) for label in labels) + 1 if labels else None
        shape, dtype = kinds["train"]
        unit = dtype == torch.uint8 or all(part.x.min() >= 0 and part.x.max() <= 1 for part in parts.values())
        self._range = (0.0, 1.0) if unit and len(shape) == 3 else None
        self.train, self.test = parts["train"], parts["test"]

    @property
    def range(self) -> tuple[float, float] | None:
        return self._range

    def load(self, train: bool) -> ArrayDataset:
        return load_npz(Path(self.path), train, self.max_bytes)


def load_npz(path: Path, train: bool, most: int = MOST_BYTES) -> ArrayDataset:
    r"""One part of an archive, as `Npz` reads it."""
    archive = read_archive(path, "data.path", most)
    has_split = {"train_images", "test_images"} <= set(archive)
    part = "train" if train or not has_split else "test"
    images = next((archive[n] for n in (f"{part}_images", "images", "x") if n in archive), None)
    label = next((archive[n] for n in (f"{part}_labels", "labels", "y") if n in archive), None)
    if images is None:
        raise UserError(f"data.path: '{path}' must hold 'train_images' (or 'images' or 'x'), got {sorted(archive)}.")
    if images.ndim < 2 or images.dtype.kind not in "uif" or (label is not None and label.dtype.kind not in "uif"):
        kinds = [f"{array.shape} of {array.dtype}" for array in (images, label) if array is not None]
        raise UserError(
            f"data.path: images and labels of '{path}' must be arrays of numbers, got {' and '.join(kinds)}."
        )
    if label is not None:
        check_labels(path, label, len(images))
    x, labels = _channels_first(images), None if label is None else torch.from_numpy(label)
    return ArrayDataset(x, labels) if has_split else split(x, labels, train)


def _channels_first(images: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images))
    if x.ndim == 3:
        return x.unsqueeze(1)
    if x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return x.permute(0, 3, 1, 2).contiguous()
    return x
