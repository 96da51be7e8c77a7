r"""Picture files that are opened: by known formats alone, within bounds, whole; damage is told from a mistake."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from scoregen.data.bounds import MOST_PIXELS, check_pixels
from scoregen.data.decode import Beyond, check_whole
from scoregen.data.tiff import is_tiff
from scoregen.errors import UserError, absent

_UNREADABLE = (  # what Pillow and tifffile raise for a damaged image
    *(OSError, ValueError, SyntaxError, EOFError, MemoryError, OverflowError, RuntimeError),
    *(zlib.error, struct.error, LookupError, TypeError, ArithmeticError, AttributeError, AssertionError),
)


_QUIET = ("ignore", None, Warning, re.compile("PIL"), 0)  # Pillow warns of damage, which is told here


class Damaged(UserError):
    r"""A sample whose file cannot be read, because its content is not what it should be."""


@dataclass(frozen=True)
class Stored:
    r"""The bytes of a picture file that is kept inside another file, and its name for messages."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


@contextmanager
def opened(file: Path | Stored, where: str, most: int = MOST_PIXELS) -> Iterator[Image.Image]:
    r"""An image, the way up that its camera noted.

    Raises:
        UserError: it is missing, damaged, or has more than `most` pixels.
    """
    if isinstance(file, Path):
        present(file, where)
    with damage(file, where), _open(file) as image:
        check_pixels(file, where, *image.size, most)
        check_whole(image, file, where)
        ImageOps.exif_transpose(image, in_place=True)
        yield image


@contextmanager
def damage(file: Path | Stored, where: str) -> Iterator[None]:
    r"""What a reader of pictures raises for a file, as one message."""
    try:
        yield
    except UserError:
        raise
    except _UNREADABLE as error:
        reason = "no kind of picture that is known" if isinstance(error, UnidentifiedImageError) else error
        known: type[UserError] = Damaged
        if isinstance(error, UnidentifiedImageError) and _begins_as_tiff(file):
            known = Beyond
        elif isinstance(error, OSError) and error.errno is not None:  # the disk, not the file
            known = UserError
        raise known(f"{where}: '{file}' is not a readable image ({reason}). Repair or remove it.") from error


def _begins_as_tiff(file: Path | Stored) -> bool:
    return is_tiff(file if isinstance(file, Path) else file.content)


def _open(file: Path | Stored) -> Image.Image:
    r"""Opens an image without Pillow's own bound, which cannot be raised for one file, nor its warnings of damage."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        if _QUIET not in warnings.filters:  # once: to change the filters for each picture takes as long as its header
            warnings.filterwarnings("ignore", module="PIL")
        return Image.open(io.BytesIO(file.content) if isinstance(file, Stored) else file, formats=_formats())
    finally:
        Image.MAX_IMAGE_PIXELS = before


@cache
def _formats() -> tuple[str, ...]:
    r"""The formats that are opened, whatever a file is called; PostScript would be run as a program."""
    Image.init()
    return tuple(name for name in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM") if name in Image.OPEN)


def present(path: Path, where: str) -> None:
    r"""Refuses a path that is no file."""
    if not path.is_file():
        raise UserError(f"{where}: {f'{path} is not a file.' if path.exists() else absent(path)}")
