r"""Pictures in tables of the Hugging Face library `datasets`: on its hub, or in files of this machine.

The library keeps a table as an Arrow file that is mapped into memory, so any row is read without the others. Pictures
stay encoded there, and are decoded by the one reader of pictures, in the worker that draws them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scoregen.data.alike import Wanted
from scoregen.data.augment import Augmentation
from scoregen.data.base import Dataset, Held, Source
from scoregen.data.bounds import MOST_PIXELS
from scoregen.data.hf_tables import Table, encoded, known, label_column, labels_of, load_tables, picture_column, roots
from scoregen.data.opening import Damaged, Stored
from scoregen.data.parts import AUTO, FOLDERS, Name, renumbered
from scoregen.data.pictures import Pictures, check_texts, wanted_of
from scoregen.data.units import UNIT, Range, as_range
from scoregen.errors import UserError, closest
from scoregen.parallel import say_once

_AT_ONCE = 16  # rows


class HuggingFace(Source):
    r"""Pictures of a data set of the Hugging Face hub, or of local parquet, Arrow, imagefolder or webdataset files.

    Args:
        path: a file, a folder, or the id of a data set on the hub, OWNER/NAME.
        split: split on which a model is trained.
        image: column of the pictures; None where there is one.
        label: column of the classes; None for the one that has names of classes, or is called label.
        caption: column of texts, in place of classes.
        subset: which subset, of a data set that has several.
        revision: branch, tag or commit on the hub.
        size: pictures are resized (shorter side) and cropped to size x size; None for pictures that all have one size.
        channels: 1 or 3, to which pictures are converted; None: as in the files, or 3 with captions.
        range: what 0 and full scale stand for in pictures of 8 and 16 bits, and where floats lie; None: [0, 1].
        augmentation: applied to training batches.
        max_pixels: largest number of pixels that a picture may have, in its file and once it is resized.
        max_corrupt: share of the pictures that a training skips where they are damaged.
        test, validation: which data are these parts, as in `Source`.

    Raises:
        ValueError: size or max_corrupt out of range.
        UserError: the library is not installed, the data cannot be found or read, or a column is missing or of another
            kind.
    """

    argument_attributes: ClassVar[dict[str, str]] = {**Source.argument_attributes, "range": "range_from"}

    def __init__(
        self,
        path: str,
        split: str = "train",
        image: str | None = None,
        label: str | None = None,
        caption: str | None = None,
        subset: str | None = None,
        revision: str | None = None,
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
        self.path, self.split, self.image, self.label, self.caption = path, split, image, label, caption
        self.subset, self.revision, self.size, self.channels, self.range_from = subset, revision, size, channels, range
        self.max_pixels, self.max_corrupt, self.name = max_pixels, max_corrupt, Path(path).stem
        channels = channels or (None if caption is None else 3)
        self._wanted = wanted_of(size, channels, range, max_pixels, max_corrupt)
        self._tables = load_tables(path, subset, revision)
        if split not in self._tables:
            raise UserError(f"data.split: '{path}' has no split '{split}'. {closest(split, self._tables)}")
        features = self._tables[split].features
        self._image = picture_column(features, image)
        self._label = label_column(features, label) if caption is None else known(features, caption, "data.caption")
        self._where = "data.label" if caption is None else "data.caption"
        names, numbers = labels_of(self._tables[split], self._label, self._where)
        if caption is not None:
            self.captions = names
        else:
            self.class_names = names or None
            self.num_classes = None if numbers is None else max(len(names), int(numbers.max()) + 1)
        words = f"column '{self._image}'" + (f", labels of '{self._label}'" if self._label else ", no labels")
        say_once(f"data.path: pictures of {words}; the columns of '{path}': {', '.join(features)}.")
        self._pictures = self._of_split(split)
        self._pictures.look(max_corrupt, f"the pictures of '{path}'")

    @property
    def range(self) -> Range:
        return as_range(self.range_from) or UNIT

    def load(self, train: bool) -> Dataset | None:
        return self._pictures if train else self._of_part("test")

    def load_validation(self) -> Dataset | None:
        return self._of_part("validation")

    def _of_part(self, part: Name) -> Dataset | None:
        return next(
            (self._of_split(name) for name in FOLDERS[part] if name in self._tables and name != self.split), None
        )

    def _of_split(self, split: str) -> "TablePictures":
        table = self._tables[split]
        has = self._label is not None and self._label in table.features  # a test split may have none
        names, numbers = labels_of(table, self._label if has else None, self._where)
        label = None if numbers is None else torch.from_numpy(numbers)
        if self.caption is None:
            label = renumbered(
                label, names or None, self.class_names, "test" if split in FOLDERS["test"] else "validation"
            )
        return TablePictures(table, self._image, roots(self.path), label, self._wanted)


class TablePictures(Pictures):
    r"""Pictures in a column of a table.

    Args:
        table: of the library. column: its name.
        roots: folders in which a picture that is not in the table may lie.
        label, wanted: as in `Pictures`.
    """

    def __init__(
        self, table: Table, column: str, roots: tuple[Path, ...], label: Tensor | None, wanted: Wanted
    ) -> None:
        super().__init__(label, wanted)
        self.table, self.column, self.roots = encoded(table.select_columns([column]), column), column, roots

    def __len__(self) -> int:
        return len(self.table)

    def picture(self, place: int) -> Path | Stored:
        return self._file(self.table[place][self.column], place)

    def read(self, places: list[int]) -> Tensor:
        return self.alike.read(self._files(places))

    def _files(self, places: list[int]) -> Iterator[Path | Stored]:
        for start in range(0, len(places), _AT_ONCE):  # rows at once cost little more than one
            chunk = places[start : start + _AT_ONCE]
            cells = self.table[chunk][self.column]
            yield from (self._file(cell, place) for cell, place in zip(cells, chunk, strict=True))

    def _file(self, value: Any, place: int) -> Path | Stored:
        r"""The bytes of a picture, or its file, from the cell of a row."""
        cell: dict[str, Any] = (
            {"bytes": value} if isinstance(value, bytes) else value if isinstance(value, dict) else {}
        )
        content, path = cell.get("bytes"), cell.get("path")
        name = f"row {place} of '{self.column}'"
        if isinstance(content, bytes):
            return Stored(f"{name} ({path})" if path else name, content)
        if not path:
            raise Damaged(f"data.image: {name} has no picture. Remove the row.")
        file = Path(path)
        if not any(file.resolve().is_relative_to(root) for root in self.roots):
            raise UserError(
                f"data.image: {name} names the file '{path}', which is not in the folder of the data. Write the bytes "
                "of the pictures into the table."
            )
        return file
