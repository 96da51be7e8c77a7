r"""A folder of images with captions. Images are read when they are used: a data set of them does not fit in memory."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scoregen.data.augment import Augmentation
from scoregen.data.base import LazyDataset, Source, part_of
from scoregen.data.bounds import MOST_PIXELS, check_number, check_size
from scoregen.data.files import image_files, read_picture
from scoregen.errors import UserError, absent, closest

METADATA = "metadata.jsonl"


class CaptionedFolder(Source):
    r"""Colour images with a caption each; the label of an image is the number of its caption in `captions`.

    Captions are read from metadata.jsonl, one {"file_name": ..., "text": ...} a line (as Hugging Face's imagefolder),
    or from a text file beside each image, of the same name with the ending .txt. A tenth of the images is held out.

    Args:
        path: the folder; without metadata.jsonl it is searched recursively.
        size: images are resized (shorter side) and cropped to size x size.
        augmentation: applied to training batches.
        max_pixels: that a picture may have, in its file and once it is resized.

    Raises:
        ValueError: size is no whole number >= 1.
        UserError: fewer than two images, too large ones, an image without a caption or a caption without an image;
            names the file.
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        path: str,
        size: int = 512,
        augmentation: Augmentation | None = None,
        max_pixels: int = MOST_PIXELS,
    ) -> None:
        super().__init__(augmentation)
        check_size(size, max_pixels)
        folder = Path(path)
        if not folder.is_dir():
            raise UserError(f"data.path: {absent(folder) if not folder.exists() else f'{folder} is not a folder.'}")
        self.path, self.size, self.name, self.max_pixels = path, int(size), folder.name, max_pixels
        table = folder / METADATA
        pairs = _from_table(table) if table.exists() else _from_texts(folder)
        self.files = [file for file, _ in pairs]
        check_number(self.files)
        self.captions = tuple(dict.fromkeys(text for _, text in pairs))
        numbers = {text: k for k, text in enumerate(self.captions)}
        self._label = torch.tensor([numbers[text] for _, text in pairs])

    def load(self, train: bool) -> "LazyImages":
        part = part_of(len(self.files), train)
        return LazyImages([self.files[i] for i in part.tolist()], self._label[part], self.size, self.max_pixels)


class LazyImages(LazyDataset):
    r"""Image files as a data set of images (3, size, size), each read when it is used.

    Args:
        files: of the images. label: (N,) integers. size: side of an image, in pixels.
        max_pixels: that a picture may have.
    """

    label: Tensor

    def __init__(self, files: Sequence[Path], label: Tensor, size: int, max_pixels: int = MOST_PIXELS) -> None:
        self.files, self.label, self.size, self.max_pixels = list(files), label, size, max_pixels

    def __len__(self) -> int:
        return len(self.files)

    def read(self, places: list[int]) -> Tensor:
        pictures = [read_picture(self.files[k], mode="RGB", size=self.size, most=self.max_pixels) for k in places]
        return torch.stack(pictures) if pictures else torch.zeros(0, 3, self.size, self.size, dtype=torch.uint8)

    def fingerprint(self) -> str:
        content = hashlib.sha256(str((self.size, self.label.tolist())).encode())
        for file in self.files:
            content.update(file.read_bytes())
        return content.hexdigest()[:16]


def _from_table(table: Path) -> list[tuple[Path, str]]:
    pairs = []
    for number, line in enumerate(table.read_text(encoding="utf-8-sig").split("\n"), 1):  # JSON may hold U+2028
        if not line.strip():
            continue
        where = f"data.path: line {number} of '{table}'"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where} is not JSON ({error}).") from error
        for key in ("file_name", "text"):
            if not isinstance(row, dict) or not isinstance(row.get(key), str):
                raise UserError(f"{where} must have the text '{key}', got {line}. {closest(key, row)}")
        file = table.parent / row["file_name"]
        if not file.is_file():
            raise UserError(f"{where}: {absent(file)}")
        pairs.append((file, row["text"]))
    if not pairs:
        raise UserError(f'data.path: \'{table}\' is empty. Write one {{"file_name": ..., "text": ...}} a line.')
    return pairs


def _from_texts(folder: Path) -> list[tuple[Path, str]]:
    files = image_files(folder)
    without = [file for file in files if not file.with_suffix(".txt").is_file()]
    if without:
        raise UserError(
            f"data.path: {len(without)} of the {len(files)} images under '{folder}' have no caption, the first is "
            f"'{without[0].relative_to(folder)}'. Write {METADATA} with a file_name and a text on each line, or a "
            f"text file beside each image ('{without[0].with_suffix('.txt').name}')."
        )
    return [(file, file.with_suffix(".txt").read_text(encoding="utf-8").strip()) for file in files]
