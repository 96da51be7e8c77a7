r"""Data from NumPy archives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scoregen import checks
from scoregen.data.augment import Augmentation
from scoregen.data.base import Dataset, Held, Source
from scoregen.data.bounds import MOST_BYTES, check_labels, check_memory
from scoregen.data.files import read_archive
from scoregen.data.layout import Layout
from scoregen.data.mapped import Mapped, map_member
from scoregen.data.parts import AUTO, NAMES, Name
from scoregen.data.rows import Rows, reading
from scoregen.data.units import Range, as_range
from scoregen.errors import UserError
from scoregen.parallel import say_once

_WHOLE = ("images", "x"), ("labels", "y")  # names of arrays without parts
_PREFIXES: dict[Name, tuple[str, ...]] = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
_SAID = 2**26  # bytes of an array in memory from which on it is said


class Npz(Source):
    r"""A NumPy archive with `train_images` (N, H, W[, C]), or `images`, or a table `x` (N, D).

    Optional: `train_labels`, and `test_images`, `test_labels`, `val_images`, `val_labels` for the other parts. Bytes,
    16 bits and floats; docs/data.md has their units. Arrays that are not compressed are mapped, not read.

    Args:
        path: the file.
        layout: "channels_last" or "channels_first"; None where the shape tells.
        range: what 0 and full scale stand for, and where floats lie; None: [0, 1] for images, anything for vectors.
        augmentation: applied to training batches.
        max_bytes: size to which an array may unpack; an array with usual or no compression may be larger.
        test, validation: which data are these parts, as in `Source`.

    Raises:
        UserError: the file is missing or damaged, its parts are empty or of different shapes or types, or values lie
            outside the range.
    """

    argument_attributes: ClassVar[dict[str, str]] = {**Source.argument_attributes, "range": "range_from"}

    def __init__(
        self,
        path: str,
        layout: Layout | None = None,
        range: Sequence[float] | None = None,
        augmentation: Augmentation | None = None,
        max_bytes: int = MOST_BYTES,
        test: Held = AUTO,
        validation: Held = AUTO,
    ) -> None:
        super().__init__(augmentation, test, validation)
        checks.whole(1, max_bytes=max_bytes)
        self.path, self.layout, self.range_from, self.max_bytes = path, layout, range, max_bytes
        self.name = Path(path).stem
        self._own = open_archive(Path(path), layout, as_range(range, None), max_bytes)
        labels = [part.label for part in self._own.values() if part.label is not None]
        self.num_classes = max(int(label.max()) for label in labels) + 1 if labels else None

    @property
    def range(self) -> Range | None:
        return self._own["train"].how.range

    def load(self, train: bool) -> Dataset | None:
        return self._own.get("train" if train else "test")

    def load_validation(self) -> Dataset | None:
        return self._own.get("validation")


def open_archive(
    path: Path, layout: Layout | None = None, stated: Range | None = None, most: int = MOST_BYTES
) -> dict[Name, Rows]:
    r"""The parts of an archive, as `Npz` reads them.

    Args:
        layout, stated: what `data.layout` and `data.range` say. most: bytes of an array that is compressed well.
    """
    archive = read_archive(path, "data.path", most)
    names = {name: _named(archive, name) for name in NAMES}
    images = {name: pair[0] for name, pair in names.items() if pair[0] is not None}
    if "train" not in images:
        raise UserError(f"data.path: '{path}' must hold 'train_images' (or 'images' or 'x'), got {sorted(archive)}.")
    used = {name for pair in names.values() for name in pair}
    if others := sorted(set(archive) - used):
        say_once(f"data.path: arrays of '{path}' that are no images or labels are left out: {', '.join(others)}.")
    arrays = {name: _array(path, archive, member) for name, member in images.items()}
    _check_alike(path, arrays)
    parts = {}
    for name, array in arrays.items():
        text = f"'{images[name]}' of '{path}'"
        how = reading(array.shape, array.dtype, layout, stated, text)
        label, member = None, names[name][1]
        if member is not None:
            label = as_labels(archive[member], path, f"'{member}' of '{path}'", array.shape[0])
        parts[name] = Rows(array, label, how, text)
    return parts


def _named(archive: Mapping[str, np.ndarray], part: Name) -> tuple[str | None, str | None]:
    r"""The names of the images and the labels of a part; None for what is not there."""
    kinds = []
    for kind, whole in zip(("images", "labels"), _WHOLE, strict=True):
        asked = [f"{prefix}_{kind}" for prefix in _PREFIXES[part]] + list(whole if part == "train" else ())
        kinds.append(next((name for name in asked if name in archive), None))
    return kinds[0], kinds[1]


def _array(path: Path, archive: Mapping[str, np.ndarray], name: str) -> Mapped | np.ndarray:
    r"""An array of an archive, mapped, or in memory where it is compressed."""
    if (mapped := map_member(path, name, "data.path")) is not None:
        return mapped
    array = archive[name]
    check_memory("data.path", array.nbytes)
    if array.nbytes >= _SAID:
        say_once(
            f"data.path: '{name}' of '{path}' is compressed, so all {array.nbytes / 2**20:,.0f} MiB are in memory. "
            "Save it with np.savez, and rows are read when they are used."
        )
    return array


def as_labels(label: np.ndarray, path: str | Path, name: str, count: int) -> Tensor | None:
    r"""The numbers of classes (N,) that an array holds; None where all are -1.

    Raises:
        UserError: they are no whole numbers, or not one for each of `count` images.
    """
    if label.ndim == 2 and label.shape[1] == 1:
        label = label[:, 0]
    if label.ndim != 1 or label.dtype.kind not in "ui":
        remedy = _CONVERSIONS.get((label.ndim, label.dtype.kind), "")
        raise UserError(
            f"data.path: {name} must hold a whole number for each image, got {label.shape} of {label.dtype}.{remedy}"
        )
    check_labels(path, label, count)
    if not (label >= 0).any():
        say_once(f"data.path: {name} are all -1, which is no label.")
        return None
    return torch.from_numpy(label.astype(np.int64))


_CONVERSIONS = {
    (1, "f"): " Convert them: labels.astype('int64').",
    (1, "b"): " Convert them: labels.astype('int64').",
    (1, "U"): " Number the classes: np.unique(labels, return_inverse=True)[1].",
    **{(2, kind): " If each has a 1 in the place of its class, convert them: labels.argmax(1)." for kind in "uifb"},
}


def _check_alike(path: Path, arrays: Mapping[Name, Mapped | np.ndarray]) -> None:
    kinds = {name: (tuple(array.shape[1:]), array.dtype) for name, array in arrays.items()}
    if any(0 in array.shape[:1] for array in arrays.values()) or len(set(kinds.values())) > 1:
        found = ", ".join(f"{name}: {array.shape} of {array.dtype}" for name, array in arrays.items())
        raise UserError(f"data.path: all parts of '{path}' must hold images of one shape and type, got {found}.")
