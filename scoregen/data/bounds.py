r"""Bounds on what a file may become in memory, checked in its header before anything is unpacked."""

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from scoregen import checks
from scoregen.errors import UserError

MOST_PIXELS = 2**26  # of a picture: 8192 x 8192
MOST_BYTES = 2**28  # of an array that was compressed well
_USUAL_RATIO = 64  # of a compressed array, which is then as large as it likes
_MOST_CLASSES = 100_000


def check_size(size: int | None, max_pixels: int) -> None:
    r"""Refuses sides of images that are no whole number >= 1, or squares of them that are too large."""
    checks.whole(1, max_pixels=max_pixels)
    if size is not None:
        checks.whole(1, size=size)
        if size**2 > max_pixels:
            raise UserError(
                f"data.size: must be at most {math.isqrt(max_pixels)}, the root of data.max_pixels, got {size}."
            )


def check_number(files: Sequence[Path]) -> None:
    r"""Refuses a single image, of which none could be held out."""
    if len(files) < 2:
        raise UserError(
            f"data.path: there must be at least 2 images, so that one can be held out, got '{files[0]}' "
            "alone. Add some."
        )


def check_pixels(file: object, where: str, width: int, height: int, most: int) -> None:
    r"""Refuses a picture of no pixels, or of more than `most`, as it is or once it is resized."""
    if not (width and height):
        raise UserError(f"{where}: '{file}' has {width} x {height} pixels. Remove it.")
    if width * height > most:
        raised = {"data.path": "data.max_pixels", "images": "max_pixels"}.get(where)  # of the jobs that have such a key
        key = f", or raise {raised}" if raised else ""
        raise UserError(
            f"{where}: '{file}' has {width} x {height} pixels, more than {most}. Cut it into smaller ones{key}."
        )


def check_array(archive: zipfile.ZipFile, member: str, where: str, size: int, most: int) -> None:
    r"""Refuses an array of an .npz file that would unpack to far more than the file holds.

    Args:
        archive: the file. member: of it. where: the key that named it. size: bytes of the file.
        most: bytes that any array may have.

    Raises:
        ValueError: it is such an array, or its header claims more than there is.
    """
    info = archive.getinfo(member)
    packed = min(info.compress_size, size)
    if info.file_size > max(most, _USUAL_RATIO * packed):
        raise ValueError(
            f"'{member}' has {info.file_size} bytes, packed in {packed}, and {most} are allowed; save it with "
            f"np.savez, which does not compress{', or raise data.max_bytes' if where == 'data.path' else ''}"
        )
    with archive.open(info) as file:
        check_header(file, info.file_size)


def check_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    r"""Shape, column-major order and type of an array; refuses one whose header claims more than its `size` bytes.

    Raises:
        ValueError: it does, or has no header of NumPy's formats 1 and 2.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format is {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns, dtype = read(file)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"its header claims {shape} of {dtype}, and it has {size} bytes")
    return shape, columns, dtype


def check_labels(path: str | Path, labels: np.ndarray, count: int) -> None:
    r"""Refuses labels that are not one for each of `count` images, or no numbers of classes."""
    if len(labels) != count:
        raise UserError(f"data.path: '{path}' must hold a label for each of its {count} images, got {len(labels)}.")
    low, high = (int(labels.min()), int(labels.max())) if labels.size and labels.dtype.kind in "iu" else (0, 0)
    if low < -1 or high >= _MOST_CLASSES:
        raise UserError(
            f"data.path: labels of '{path}' must be numbers of classes from 0 to {_MOST_CLASSES - 1}, or -1 for none, "
            f"got {low} to {high}. Number the classes from 0."
        )


def check_memory(where: str, size: int) -> None:
    r"""Refuses data of `size` bytes that are to be held in memory and have no room there."""
    try:
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not known on this system
        return
    if size > room:
        raise UserError(
            f"{where}: the images would take {size / 2**30:.1f} GiB, more than this machine's memory, "
            f"{room / 2**30:.1f} GiB. Give a smaller data.size, or fewer images."
        )
