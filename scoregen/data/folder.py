r"""A folder of pictures: names are read at the start, pictures when they are drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoregen import checks
from scoregen.data import identity
from scoregen.data.alike import Alike, Wanted
from scoregen.data.augment import Augmentation
from scoregen.data.base import Dataset, Held, Source
from scoregen.data.bounds import MOST_PIXELS, check_size
from scoregen.data.classes import classes_of
from scoregen.data.index import IMAGE_SUFFIXES, Files, files_of
from scoregen.data.opening import Damaged
from scoregen.data.parts import AUTO
from scoregen.data.pictures import Pictures
from scoregen.data.units import Range, as_range, tell_flat
from scoregen.errors import UserError, absent

_HEADERS, _READ = 500, 4  # pictures of which the header, or all, is read at the start


class Folder(Source):
    r"""A folder of pictures; its sub-folders, if any, are the classes. docs/data.md lists the kinds of pictures.

    Sub-folders train and test (or val), and no others, are the parts; else a tenth of the pictures is held out.

    Args:
        path: the folder, searched recursively.
        size: pictures are resized (shorter side) and cropped to size x size; None for pictures that all have one size.
        channels: 1 or 3, that they are converted to; None for that of the files.
        range: what 0 and full scale stand for in pictures of 8 and 16 bits, and where floats lie; None: [0, 1].
        augmentation: applied to training batches.
        max_pixels: that a picture may have, in its file and once it is resized.
        max_corrupt: share of the pictures that a training skips where they are damaged.
        test, validation: as `Source`.

    Raises:
        ValueError: size or max_corrupt out of range.
        UserError: no pictures, too large ones, or pictures that differ in size or channels; names the files.
    """

    argument_attributes: ClassVar[dict[str, str]] = {**Source.argument_attributes, "range": "range_from"}

    def __init__(
        self,
        path: str,
        size: int | None = None,
        channels: Literal[1, 3] | None = None,
        range: Sequence[float] | None = None,
        augmentation: Augmentation | None = None,
        max_pixels: int = MOST_PIXELS,
        max_corrupt: float = 0.001,
        test: Held = AUTO,
        validation: Held = AUTO,
    ) -> None:
        super().__init__(augmentation, test, validation)
        check_size(size, max_pixels)
        checks.inside(0, 1, max_corrupt=max_corrupt)
        if channels not in (1, 3, None):
            raise UserError(f"data.channels: must be 1 or 3, got {channels}.")
        self.path, self.size, self.channels, self.range_from = (
            path,
            None if size is None else int(size),
            channels,
            range,
        )
        self.max_pixels, self.max_corrupt = max_pixels, max_corrupt
        folder = _existing(path)
        self.name, self.files = folder.resolve().name, files_of(folder, IMAGE_SUFFIXES)
        self._classes = classes_of(self.files)
        self.class_names = self._classes.names or None
        self.num_classes = len(self._classes.names) or None
        self._alike = self._checked()

    @property
    def range(self) -> Range:
        return as_range(self.range_from) or (0.0, 1.0)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._alike.shape

    def load(self, train: bool) -> Dataset | None:
        return self._part("train" if train else "test")

    def load_validation(self) -> Dataset | None:
        return self._part("validation")

    def _part(self, name: Literal["train", "validation", "test"]) -> Dataset | None:
        places = self._classes.part(name)
        if places is None:
            return None
        return PictureFiles(self.files, places, self._classes.label(places), self._alike)

    def _checked(self) -> Alike:
        r"""The reader of pictures like the first whole one; reads the headers of some, and a few pictures."""
        wanted, alike, damaged = Wanted(self.size, self.channels, self.max_pixels, self.range), None, 0
        for place in spread(len(self.files), _HEADERS):
            try:
                alike = alike or Alike.to(self.files[place], wanted)
                alike.check(self.files[place])
            except Damaged:
                damaged += 1
                if damaged > self.max_corrupt * len(self.files):
                    raise
        assert alike is not None  # one was whole, or there are too many damaged ones
        self._look(alike)
        return alike

    def _look(self, alike: Alike) -> None:
        r"""Reads a few pictures, and tells what is odd about their values."""
        part = PictureFiles(self.files, torch.tensor(spread(len(self.files), _READ)), None, alike)
        try:
            tell_flat(part.in_units(slice(None))[0], self.range, f"the pictures under '{self.path}'")
        except Damaged:  # a training counts them
            return


class PictureFiles(Pictures):
    r"""Some of the pictures of a folder.

    Args:
        files: of the folder. places: (N,) the numbers of these in it. label: (N,) integers, or None.
        alike: reads them.
    """

    def __init__(self, files: Files, places: Tensor, label: Tensor | None, alike: Alike) -> None:
        wanted = alike.wanted
        super().__init__(label, wanted.size, wanted.most, wanted.mode, wanted.range)
        self.files, self.places, self.alike = files, places, alike

    def __len__(self) -> int:
        return len(self.places)

    def picture(self, place: int) -> Path:
        return self.files[int(self.places[place])]

    def entries(self) -> dict[str, str]:
        names = [self.files.name(place) for place in self.places.tolist()]
        return identity.of_files([self.files.folder / name for name in names], names)

    def fingerprint(self) -> str:
        labels = None if self.label is None else self.label.tolist()
        told = {"": str((self.shape, self.mode, self.range, labels))}
        return identity.fingerprint(self.entries() | told)


def spread(count: int, most: int) -> list[int]:
    r"""At most so many of the numbers 0 to count - 1, evenly spread."""
    taken = min(count, most)
    return [k * count // taken for k in range(taken)]


def _existing(path: str) -> Path:
    if not Path(path).is_dir():
        raise UserError(f"data.path: {f'{path} is not a folder.' if Path(path).exists() else absent(path)}")
    return Path(path)
