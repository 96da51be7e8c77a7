r"""A folder of pictures: names are read at the start, pictures when they are drawn."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoregen.data import identity
from scoregen.data.alike import Alike
from scoregen.data.augment import Augmentation
from scoregen.data.base import Dataset, Held, Source
from scoregen.data.bounds import MOST_PIXELS
from scoregen.data.classes import classes_of
from scoregen.data.index import IMAGE_SUFFIXES, Files, files_of
from scoregen.data.parts import AUTO
from scoregen.data.pictures import Pictures, wanted_of
from scoregen.data.units import Range, as_range
from scoregen.errors import UserError, absent


class Folder(Source):
    r"""A folder of pictures; its sub-folders, if any, are the classes. docs/data.md lists the kinds of pictures.

    Sub-folders train and test (or val), and no others, are the parts; else a tenth of the pictures is held out.

    Args:
        path: the folder, searched recursively.
        size: pictures are resized (shorter side) and cropped to size x size; None for pictures that all have one size.
        channels: 1 or 3, to which pictures are converted; None: as in the files.
        range: what 0 and full scale stand for in pictures of 8 and 16 bits, and where floats lie; None: [0, 1].
        augmentation: applied to training batches.
        max_pixels: largest number of pixels that a picture may have, in its file and once it is resized.
        max_corrupt: share of the pictures that a training skips where they are damaged.
        test, validation: which data are these parts, as in `Source`.

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
        wanted = wanted_of(size, channels, range, max_pixels, max_corrupt)
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
        every = PictureFiles(self.files, torch.arange(len(self.files)), None, Alike(self.files[0], wanted))
        self._alike = every.look(max_corrupt, f"the pictures under '{path}'")

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

    def _is_other_part(self, name: str) -> bool:
        return bool(self._classes.parts) and super()._is_other_part(name)

    def _part(self, name: Literal["train", "validation", "test"]) -> Dataset | None:
        places = self._classes.part(name)
        if places is None:
            return None
        return PictureFiles(self.files, places, self._classes.label(places), self._alike)


class PictureFiles(Pictures):
    r"""Some of the pictures of a folder.

    Args:
        files: of the folder. places: (N,) the numbers of these in it. label: (N,) integers, or None.
        alike: reads them.
    """

    def __init__(self, files: Files, places: Tensor, label: Tensor | None, alike: Alike) -> None:
        super().__init__(label, alike.wanted)
        self.files, self.places, self.alike = files, places, alike

    def __len__(self) -> int:
        return len(self.places)

    def picture(self, place: int) -> Path:
        return self.files[int(self.places[place])]

    def entries(self) -> identity.Entries:
        names = (self.files.name(int(place)) for place in self.places)
        return identity.of_files(self.files.folder, names, len(self))

    @cached_property
    def _fingerprint(self) -> str:
        labels = "none" if self.label is None else sha256(self.label.numpy().tobytes()).hexdigest()
        return identity.fingerprint([*self.entries(), (identity.NO_FILE, f"{self.shape} {self.range} {labels}")])


def _existing(path: str) -> Path:
    if not Path(path).is_dir():
        raise UserError(f"data.path: {f'{path} is not a folder.' if Path(path).exists() else absent(path)}")
    return Path(path)
