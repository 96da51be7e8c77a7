r"""A folder of pictures with captions: texts are read at the start, pictures when they are drawn."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from scoregen import foreign
from scoregen.data import identity
from scoregen.data.alike import Wanted
from scoregen.data.augment import Augmentation
from scoregen.data.base import Dataset, Held, Source
from scoregen.data.bounds import MOST_PIXELS
from scoregen.data.index import IMAGE_SUFFIXES, Files, files_of
from scoregen.data.parts import AUTO
from scoregen.data.pictures import Pictures, as_captions, wanted_of
from scoregen.errors import UserError, absent, closest
from scoregen.parallel import say_once

METADATA = "metadata.jsonl"
_MOST_TEXT = 2**20  # bytes of a caption, or of a line of the table


class CaptionedFolder(Source):
    r"""Colour pictures with a caption each; the label of a picture is the number of its caption in `captions`.

    Captions are read from metadata.jsonl, one {"file_name": ..., "text": ...} a line (as Hugging Face's imagefolder),
    or from a text file beside each picture, of the same name with the ending .txt; all in UTF-8.

    Args:
        path: the folder; without metadata.jsonl it is searched recursively.
        size: pictures are resized (shorter side) and cropped to size x size.
        augmentation: applied to training batches.
        max_pixels: largest number of pixels that a picture may have, in its file and once it is resized.
        max_corrupt: share of the pictures that a training skips where they are damaged.
        test, validation: which data are these parts, as in `Source`.

    Raises:
        ValueError: size or max_corrupt out of range.
        UserError: no pictures, too large ones, ones of more than 8 bits, a picture without a caption or a caption
            without a picture, a text that is not UTF-8; names the file.
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        path: str,
        size: int = 512,
        augmentation: Augmentation | None = None,
        max_pixels: int = MOST_PIXELS,
        max_corrupt: float = 0.001,
        test: Held = AUTO,
        validation: Held = AUTO,
    ) -> None:
        super().__init__(augmentation, test, validation)
        wanted = wanted_of(size, 3, None, max_pixels, max_corrupt)
        folder = Path(path)
        if not folder.is_dir():
            raise UserError(f"data.path: {absent(folder) if not folder.exists() else f'{folder} is not a folder.'}")
        self.path, self.size, self.name = path, int(size), folder.resolve().name
        self.max_pixels, self.max_corrupt = max_pixels, max_corrupt
        table = folder / METADATA
        names, texts = zip(*(_of_table(table) if table.exists() else _of_texts(folder)), strict=True)
        self.files = Files.of(folder, names)
        self.captions, numbers = as_captions(texts, "data.path")
        _tell(folder, names, texts, table.exists())
        self._pictures = CaptionedFiles(self.files, torch.from_numpy(numbers), wanted)
        self._pictures.look(max_corrupt, f"the pictures under '{path}'")

    def load(self, train: bool) -> Dataset | None:
        return self._pictures if train else None


class CaptionedFiles(Pictures):
    r"""Picture files as RGB of one size.

    Args:
        files: of a folder. label: (N,) integers. wanted: how they are read.
    """

    label: Tensor

    def __init__(self, files: Files, label: Tensor, wanted: Wanted) -> None:
        super().__init__(label, wanted)
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def picture(self, place: int) -> Path:
        return self.files[place]

    def entries(self) -> identity.Entries:
        names = (self.files.name(place) for place in range(len(self)))
        return identity.of_files(self.files.folder, names, len(self))


def _of_table(table: Path) -> Iterator[tuple[str, str]]:
    r"""Name and text of each line."""
    found = False
    with table.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MOST_TEXT + 1), b""), 1):
            where = f"data.path: line {number} of '{table}'"
            if len(line) > _MOST_TEXT:
                raise UserError(f"{where} has more than {_MOST_TEXT} bytes. Write one picture a line.")
            text = _utf8(line, where)
            if text.strip():
                found = True
                yield _of_line(text, table.parent, where)
    if not found:
        raise UserError(f'data.path: \'{table}\' is empty. Write one {{"file_name": ..., "text": ...}} a line.')


def _of_line(line: str, folder: Path, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}).") from error
    for key in ("file_name", "text"):
        if not isinstance(row, dict) or not isinstance(row.get(key), str):
            raise UserError(f"{where} must have the text '{key}', got {line.strip()}. {closest(key, row)}")
    name, text = row["file_name"], row["text"]
    if not (folder / name).is_file():
        raise UserError(f"{where}: {absent(folder / name)}")
    return name, text


def _of_texts(folder: Path) -> Iterator[tuple[str, str]]:
    r"""Name and text of each picture."""
    files = files_of(folder, IMAGE_SUFFIXES)
    without = [file for file in files if not file.with_suffix(".txt").is_file()]
    if without:
        raise UserError(
            f"data.path: {len(without)} of the {len(files)} images under '{folder}' have no caption, the first is "
            f"'{without[0].relative_to(folder)}'. Write {METADATA} with a file_name and a text on each line, or a "
            f"text file beside each image ('{without[0].with_suffix('.txt').name}')."
        )
    for k, file in enumerate(files):
        text = file.with_suffix(".txt")
        try:
            content = foreign.read_bytes(text, _MOST_TEXT)
        except (OSError, ValueError) as error:
            raise UserError(f"data.path: '{text}' cannot be read ({error}).") from error
        yield files.name(k), _utf8(content, f"data.path: '{text}'").strip()


def _tell(folder: Path, names: Sequence[str], texts: Sequence[str], by_table: bool) -> None:
    r"""Says which captions are empty, and which pictures and texts a table leaves out or names again."""
    if empty := sum(not text.strip() for text in texts):
        say_once(f"data.path: {empty:,} of {len(texts):,} captions under '{folder}' are empty.")
    if not by_table:
        return
    known = {os.path.normpath(name) for name in names}
    if again := len(names) - len(known):
        say_once(f"data.path: {again:,} lines of '{folder / METADATA}' name a picture again; each counts as one more.")
    if left := [name for name in files_of(folder, IMAGE_SUFFIXES).names if name not in known]:
        say_once(
            f"data.path: {len(left):,} pictures under '{folder}' are not in {METADATA}, so they are left out (first: "
            f"'{left[0]}')."
        )
    if any((folder / name).with_suffix(".txt").exists() for name in names):
        say_once(f"data.path: texts beside the pictures of '{folder}' are left out, as {METADATA} has the captions.")


def _utf8(content: bytes, where: str) -> str:
    r"""Text in UTF-8, with or without a mark at its beginning."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        likely = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1 or cp1252"
        raise UserError(
            f"{where} is not UTF-8: byte {error.start} is {content[error.start]:#04x}. It may be {likely}: convert it."
        ) from error
