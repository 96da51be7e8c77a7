r"""Arrays of NumPy in .npy files: one file of samples, or a folder of files."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scoregen import checks
from scoregen.data import identity
from scoregen.data.arrays import as_labels
from scoregen.data.augment import Augmentation
from scoregen.data.base import Dataset, Held, Source
from scoregen.data.classes import classes_of
from scoregen.data.files import read_array
from scoregen.data.index import Files, files_of
from scoregen.data.indexed import Joined, LazyDataset
from scoregen.data.layout import Layout, shape_of
from scoregen.data.mapped import map_array
from scoregen.data.opening import Damaged
from scoregen.data.parts import AUTO, NAMES, Name
from scoregen.data.pictures import spread
from scoregen.data.rows import ANYWHERE, Reading, Rows, full_scale, reading
from scoregen.data.units import UNIT, Range, as_range, check_units, tell_flat
from scoregen.errors import UserError, absent

_LOOKED = 32  # files that are read at the start


class Npy(Source):
    r"""An .npy file of samples (N, H, W), (N, H, W, C), (N, C, H, W) or (N, D); or a folder of .npy files.

    In a folder each file is one sample; files of four axes hold several, as one file does. Sub-folders are classes, and
    train and test (or val) are the parts, as of pictures. One file is mapped, not read.

    Args:
        path: the file or folder.
        labels: .npy file of the number of the class of each sample of one file.
        layout: "channels_last" or "channels_first"; None where the shape tells.
        range: what 0 and full scale stand for, and where floats lie; None: [0, 1] for images, anything for vectors.
        augmentation: applied to training batches.
        max_corrupt: share of the files of a folder that a training skips where they are damaged.
        test, validation: which data are these parts, as in `Source`.

    Raises:
        UserError: a file is missing or damaged, arrays differ in shape or type, or values lie outside the range.
    """

    argument_attributes: ClassVar[dict[str, str]] = {**Source.argument_attributes, "range": "range_from"}

    def __init__(
        self,
        path: str,
        labels: str | None = None,
        layout: Layout | None = None,
        range: Sequence[float] | None = None,
        augmentation: Augmentation | None = None,
        max_corrupt: float = 0.001,
        test: Held = AUTO,
        validation: Held = AUTO,
    ) -> None:
        super().__init__(augmentation, test, validation)
        checks.inside(0, 1, max_corrupt=max_corrupt)
        place = Path(path)
        if not place.exists():
            raise UserError(f"data.path: {absent(place)}")
        self.path, self.labels, self.layout, self.range_from, self.max_corrupt = (
            path,
            labels,
            layout,
            range,
            max_corrupt,
        )
        self.name = place.resolve().stem
        self._own = self._one_file(place) if place.is_file() else self._folder(place)

    @property
    def range(self) -> Range | None:
        return self._how.range

    def load(self, train: bool) -> Dataset | None:
        return self._own.get("train" if train else "test")

    def load_validation(self) -> Dataset | None:
        return self._own.get("validation")

    def _one_file(self, path: Path) -> dict[Name, Dataset]:
        array = map_array(path, "data.path")
        if not array.shape or not array.shape[0]:
            raise UserError(f"data.path: '{path}' must hold samples, got an array of shape {array.shape}.")
        self._how = reading(array.shape, array.dtype, self.layout, as_range(self.range_from, None), f"'{path}'")
        label = None
        if self.labels is not None:
            label = as_labels(read_array(Path(self.labels), "data.labels"), path, f"'{self.labels}'", array.shape[0])
            self.num_classes = None if label is None else int(label.max()) + 1
        return {"train": Rows(array, label, self._how, f"'{path}'")}

    def _folder(self, folder: Path) -> dict[Name, Dataset]:
        if self.labels is not None:
            raise UserError("data.labels: the classes of a folder are its sub-folders. Leave data.labels out.")
        files = files_of(folder, (".npy",), kind="arrays")
        classes = classes_of(files)
        self.class_names, self.num_classes = classes.names or None, len(classes.names) or None
        first = map_array(files[0], "data.path")
        several = len(first.shape) == 4
        shape = first.shape if several else (1, *first.shape)
        self._how = reading(shape, first.dtype, self.layout, as_range(self.range_from, None), f"'{files[0]}'")
        parts: dict[Name, Dataset] = {}
        for name in NAMES:
            if (places := classes.part(name)) is not None:
                read = _joined if several else ArrayFiles
                parts[name] = read(files, places, classes.label(places), self._how)
        if not several:
            _look(parts["train"], f"the arrays under '{folder}'", full_scale(first.dtype))
        return parts


class ArrayFiles(LazyDataset):
    r"""Files of one sample each, read when they are used.

    Args:
        files: of the folder. places: (N,) the numbers of these in it. label: (N,) integers, or None.
        how: they are read.
    """

    decodes = True

    def __init__(self, files: Files, places: Tensor, label: Tensor | None, how: Reading) -> None:
        self.files, self.places, self.label, self.how = files, places, label, how
        self.range = how.range or UNIT

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def _first(self) -> tuple[tuple[int, ...], np.dtype]:
        first = map_array(self.files[0], "data.path")
        return first.shape, first.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self._first[0], self.how.layout)

    def read(self, places: list[int]) -> Tensor:
        samples = [self._one(self.files[int(self.places[place])]) for place in places]
        return torch.cat(samples) if samples else self.how(np.zeros((0, *self._first[0]), self._first[1]))

    def _one(self, file: Path) -> Tensor:
        array = read_array(file, "data.path")
        if (array.shape, array.dtype) != self._first:
            shape, dtype = self._first
            raise UserError(
                f"data.path: arrays must be alike, but '{self.files[0]}' has {shape} of {dtype}, '{file}' "
                f"{array.shape} of {array.dtype}. Convert them."
            )
        x = self.how(array[None])
        if array.dtype.kind == "f":
            check_units(x, self.how.range or ANYWHERE, f"'{file}'")
        return x

    def entries(self) -> identity.Entries:
        names = (self.files.name(int(place)) for place in self.places)
        return identity.of_files(self.files.folder, names, len(self))

    def fingerprint(self) -> str:
        labels = "none" if self.label is None else sha256(self.label.numpy().tobytes()).hexdigest()
        return identity.fingerprint([*self.entries(), (identity.NO_FILE, f"{self.how} {labels}")])


def _joined(files: Files, places: Tensor, label: Tensor | None, how: Reading) -> Dataset:
    r"""Files of several samples each, as one data set; a file has one class."""
    rows = []
    for k, place in enumerate(places.tolist()):
        file = files[place]
        array = map_array(file, "data.path")
        numbers = None if label is None else label[k].repeat(array.shape[0])
        rows.append(Rows(array, numbers, how, f"'{file}'"))
        if (rows[-1].shape, array.dtype) != (rows[0].shape, rows[0].array.dtype):
            raise UserError(
                f"data.path: arrays must be alike, but '{files[int(places[0])]}' has {rows[0].array.shape} of "
                f"{rows[0].array.dtype}, '{file}' {array.shape} of {array.dtype}. Convert them."
            )
    return Joined(rows)


def _look(part: Dataset, name: str, full: int | None) -> None:
    r"""Reads a few samples, and tells what is odd about their values."""
    places = spread(len(part), _LOOKED)
    some = f" ({len(places)} of {len(part):,} looked at)" if len(places) < len(part) else ""
    try:
        tell_flat(part.in_units(places)[0], part.range, name + some, full)
    except Damaged:  # a training counts them
        return
