r"""Pictures that Pillow reads and writes as they are: PNG and JPEG, grey or RGB, of 8 bits, and grey PNG of 16 bits."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scoregen.data.bounds import MOST_PIXELS
from scoregen.data.files import picture_shape, read_exact
from scoregen.restoration.scenes import KEY, FileScene, Pieces, Plane, interleaved
from scoregen.storage import write_atomically
from scoregen.whole import is_picture

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


@lru_cache(maxsize=1)
def _unpacked(path: Path, most: int) -> np.ndarray:
    r"""The values (C, H, W) of a picture; the last one is kept, as its bands are read one after another."""
    return read_exact(path, KEY, most).numpy()


class Picture(FileScene):
    r"""A picture, which is unpacked as a whole.

    Args:
        path: the file. name: of it in its folder. most: pixels that it may have.
    """

    whole = True

    def __init__(self, path: Path, name: str, most: int = MOST_PIXELS) -> None:
        self.path, self.name, self.most = path, name, most
        shape = picture_shape(path, KEY, exact=True, most=most)
        with Image.open(path) as image:
            deep = image.mode.startswith("I")
        self.planes = [Plane(*shape, np.dtype(np.uint16 if deep else np.uint8))]

    def read(self, plane: int, first: int, last: int) -> np.ndarray:
        return _unpacked(self.path, self.most)[:, first:last]

    def is_whole(self, out: Path) -> bool:
        plane = self.planes[0]
        return is_picture(self.place(out), (plane.height, plane.width)) and self.has_whole_deviations(out)

    def write_values(self, out: Path, pieces: Pieces) -> None:
        values = np.concatenate([piece.values for piece in pieces.of(0)], axis=1)
        picture, place = Image.fromarray(interleaved(values)), self.place(out)
        kind = SUFFIXES[place.suffix.lower()]
        options: dict[str, Any] = {"quality": 95} if kind == "JPEG" else {}
        write_atomically(place, lambda file: picture.save(file, format=kind, **options))
