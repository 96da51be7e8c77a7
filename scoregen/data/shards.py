r"""Pictures in tar files of the webdataset layout, read in any order at their offsets; nothing is unpacked."""

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from scoregen.data.alike import Wanted
from scoregen.data.augment import Augmentation
from scoregen.data.base import Dataset, Held, Source, Subset
from scoregen.data.bounds import MOST_PIXELS
from scoregen.data.opening import Stored
from scoregen.data.parts import AUTO, FOLDERS, Name
from scoregen.data.pictures import Pictures, as_captions, as_classes, check_texts, wanted_of
from scoregen.data.tar_cache import index_of
from scoregen.data.tar_index import Asked, Index
from scoregen.data.tars import open_regular
from scoregen.data.units import UNIT, Range, as_range
from scoregen.errors import UserError, absent

_MOST_OPEN = 64  # files


class Shards(Source):
    r"""Pictures in tar files of the webdataset layout: members KEY.png (or .jpg, ...) and KEY.cls or KEY.json.

        Where the names of the tar files, or of their folders, begin with train, val or test, these are the parts.

    Args:
        path: a tar file, or a folder that is searched for them.
        image: ending of the pictures, such as seg.png; None for png, jpg, jpeg, bmp, tif, tiff and webp.
        label: what holds the class, a number or a name: the ending of a member, or a field of a JSON one, json.FIELD;
            None for cls where there is one.
        caption: what holds a text, in place of a class: txt, or json.FIELD.
        size: pictures are resized (shorter side) and cropped to size x size; None for pictures that all have one size.
        channels: 1 or 3, to which pictures are converted; None: as in the files, or 3 with captions.
        range: what 0 and full scale stand for in pictures of 8 and 16 bits, and where floats lie; None: [0, 1].
        augmentation: applied to training batches.
        max_pixels: largest number of pixels that a picture may have, in its file and once it is resized.
        max_corrupt: share of the pictures that a training skips where they are damaged.
        test, validation: which data are these parts, as in `Source`.

    Raises:
        ValueError: size or max_corrupt out of range.
        UserError: a tar file is missing, compressed or damaged, or holds links; a sample has no label or two pictures.
    """

    argument_attributes: ClassVar[dict[str, str]] = {**Source.argument_attributes, "range": "range_from"}

    def __init__(
        self,
        path: str,
        image: str | None = None,
        label: str | None = None,
        caption: str | None = None,
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
        check_texts(label, caption)
        self.path, self.image, self.label, self.caption = path, image, label, caption
        self.size, self.channels, self.range_from = size, channels, range
        self.max_pixels, self.max_corrupt, self.name = max_pixels, max_corrupt, Path(path).resolve().stem
        wanted = wanted_of(size, channels or (None if caption is None else 3), range, max_pixels, max_corrupt)
        where = "data.label" if caption is None else "data.caption"
        files = tar_files(Path(path))
        self._part_of_file = parts_of(files, Path(path))
        self.index = index_of(files, Asked.of(image, label or caption, where))
        numbers: np.ndarray | None
        if caption is not None:
            self.captions, numbers = as_captions(self.index.values, where)
        else:
            names, numbers = as_classes(self.index.values, where)
            if label is not None and numbers is None:
                raise UserError(
                    f"data.label: '{label}' gives no class for any sample. Name another one, or leave it out."
                )
            self.class_names = names or None
            self.num_classes = None if numbers is None else int(numbers.max()) + 1
        self._pictures = TarPictures(self.index, None if numbers is None else torch.from_numpy(numbers), wanted)
        self._pictures.look(max_corrupt, f"the pictures in '{path}'")

    @property
    def range(self) -> Range:
        return as_range(self.range_from) or UNIT

    def load(self, train: bool) -> Dataset | None:
        return self._of_part("train" if train else "test")

    def load_validation(self) -> Dataset | None:
        return self._of_part("validation")

    def _is_other_part(self, name: str) -> bool:
        return _part(Path(name)) not in (None, "train")

    def _of_part(self, name: Name) -> Dataset | None:
        files = [k for k, part in enumerate(self._part_of_file) if part == name]
        chosen = torch.from_numpy(np.isin(self.index.shard, files).nonzero()[0])
        return Subset(self._pictures, chosen) if len(chosen) else None


class TarPictures(Pictures):
    r"""Pictures in tar files.

    Args:
        index: where they are.
        label, wanted: as in `Pictures`.
    """

    def __init__(self, index: Index, label: torch.Tensor | None, wanted: Wanted) -> None:
        super().__init__(label, wanted)
        self.index, self._open = index, OrderedDict[int, int]()

    def __len__(self) -> int:
        return len(self.index.offset)

    def picture(self, place: int) -> Stored:
        shard, index = int(self.index.shard[place]), self.index
        content = os.pread(self._descriptor(shard), int(index.size[place]), int(index.offset[place]))
        return Stored(f"{index.files[shard]}: byte {index.offset[place]}", content)

    def _descriptor(self, shard: int) -> int:
        r"""The descriptor of an open tar file; a position is given with each read, so processes may share it."""
        if shard not in self._open:
            if len(self._open) >= _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = open_regular(self.index.files[shard], "data.path")
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, object]:  # another process opens its own
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)

    def fingerprint(self) -> str:
        r"""Of what is read as `Pictures` does, and of the headers of all members."""
        return sha256(str((super().fingerprint(), self.index.digests)).encode()).hexdigest()[:16]


def parts_of(files: Sequence[Path], top: Path) -> list[Name]:
    r"""The part that each file belongs to, by the beginning of its name or of the folder in which it lies.

    Raises:
        UserError: some say their part, and others do not.
    """
    said = [_part(file.relative_to(top) if file != top else Path(file.name)) for file in files]
    known = {name for name in said if name is not None}
    if "train" not in known and len(set(said)) == 1:
        return ["train"] * len(files)
    if None in said or "train" not in known:
        part = next(file for file, name in zip(files, said, strict=True) if name not in (None, "train"))
        strange = files[said.index(None)] if None in said else part
        raise UserError(
            f"data.path: the name of each tar file must begin with train, val or test, or that of none, got "
            f"'{part.name}' and '{strange.name}'. Rename them, or give data.test=PATH."
        )
    return [name for name in said if name is not None]


def _part(file: Path) -> Name | None:
    words = [re.split(r"[^a-z]", place.lower())[0] for place in file.parts]
    return next((name for word in words for name, known in FOLDERS.items() if word in known), None)


def tar_files(path: Path) -> Sequence[Path]:
    r"""A tar file, or those of a folder, searched recursively and sorted by name.

    Raises:
        UserError: there are none.
    """
    if not path.exists():
        raise UserError(f"data.path: {absent(path)}")
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*.tar") if not file.name.startswith("."))
    if not found:
        other = sorted(file.name for file in path.rglob("*.tar.*"))[:1]
        hint = f" '{other[0]}' is compressed: unpack it to a plain .tar file." if other else ""
        raise UserError(f"data.path: no .tar files under '{path}'.{hint}")
    return found
