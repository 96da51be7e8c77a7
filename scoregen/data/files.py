r"""Pictures and arrays in files: one reader for each kind, whose messages name the file.

`where` is the key that named the file, such as data.path: messages begin with it.
"""

import io
import lzma
import struct
import tokenize
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from scoregen.data.bounds import MOST_BYTES, MOST_PIXELS, check_array, check_header, check_pixels
from scoregen.errors import UserError, absent
from scoregen.parallel import say_once

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DAMAGED = (  # what NumPy raises for a file that is not an archive, or a damaged one
    *(ValueError, TypeError, OSError, AttributeError, EOFError, SyntaxError, NotImplementedError),
    *(BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
    *(RuntimeError, MemoryError, OverflowError),  # an encrypted one; a header that claims too much
)
_UNREADABLE = (  # what Pillow raises for a damaged image
    *(OSError, ValueError, SyntaxError, EOFError, MemoryError, OverflowError, RuntimeError),
    *(zlib.error, struct.error),
)
TEXTS = (".txt", ".jsonl", ".json", ".csv", ".md")  # beside images they say something about them
_EIGHT_BITS = {mode: mode for mode in ("L", "RGB", "RGBA")} | {mode: "RGB" for mode in ("P", "LA", "CMYK", "YCbCr")}
_EIGHT_BITS["1"] = "L"  # from the mode of a file to the one that it is read in
_EXACT = {mode: mode for mode in ("L", "RGB", "I;16", "F")}


@dataclass(frozen=True)
class Stored:
    r"""The bytes of a picture file that is kept inside another file, and its name for messages."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


def image_files(folder: Path, where: str = "data.path", suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[Path]:
    r"""The images of a folder, searched recursively and sorted by name; hidden files and folders are left out.

        Files of other kinds, but for texts, are counted on standard error.

    Raises:
        UserError: there are none.
    """
    seen = (p for p in folder.rglob("*") if not any(part[0] == "." for part in p.relative_to(folder).parts))
    kinds: dict[bool, list[Path]] = {True: [], False: []}
    for path in seen:
        kinds[path.suffix.lower() in suffixes].append(path)
    if not kinds[True]:
        raise UserError(f"{where}: no images ({', '.join(suffixes)}) under '{folder}'.")
    other = Counter(p.suffix.lower() or "no suffix" for p in kinds[False] if p.suffix not in TEXTS and not p.is_dir())
    if other:
        found = ", ".join(f"{count} of {kind}" for kind, count in sorted(other.items()))
        say_once(f"{where}: files under '{folder}' that are no images ({', '.join(suffixes)}) are left out: {found}.")
    return sorted(kinds[True])


def read_picture(
    file: Path | Stored,
    where: str = "data.path",
    mode: str | None = None,
    size: int | None = None,
    most: int = MOST_PIXELS,
) -> Tensor:
    r"""The bytes (C, H, W) of a picture, the way up that its camera noted.

        Palette, CMYK and 1-bit pictures are converted to RGB or grey; deeper than 8 bits is refused, as is damage.

    Args:
        mode: of Pillow, "RGB" or "L", to convert to; None for grey, RGB or RGBA as in the file.
        size: shorter side after resizing, then cropped square; None for the picture as it is.
        most: pixels that it may have.

    Raises:
        UserError: the file is missing, damaged, too large or of another kind.
    """
    with opened(file, where, most) as image:
        if size:
            check_pixels(file, where, *_resized(image.size, size), most)
        image = image.convert(_mode(image, where, _EIGHT_BITS)).convert(mode)
        return _channels_first(_cropped(image, size) if size else image)


def read_exact(file: Path, where: str, most: int = MOST_PIXELS) -> Tensor:
    r"""The values (C, H, W) of a picture without any conversion: uint8, uint16 (grey) or float32 (grey).

    Args:
        most: pixels that it may have.

    Raises:
        UserError: the file is missing, damaged, or of a kind that would have to be converted (palette, RGBA, ...).
    """
    with opened(file, where, most) as image:
        return _channels_first(image.convert(_mode(image, where, _EXACT)))


def picture_shape(
    file: Path | Stored, where: str = "data.path", exact: bool = False, most: int = MOST_PIXELS
) -> tuple[int, int, int]:
    r"""The shape (C, H, W) that `read_picture`, or `read_exact`, would give; reads the header alone."""
    with opened(file, where, most) as image:
        mode = _mode(image, where, _EXACT if exact else _EIGHT_BITS)
        return Image.getmodebands(mode), image.height, image.width


def as_fraction(pixels: Tensor) -> Tensor:
    r"""Unsigned integers as fractions of full scale (bytes: x/255), floats as they are; float32."""
    return pixels.float() if pixels.is_floating_point() else pixels.float() / torch.iinfo(pixels.dtype).max


@contextmanager
def opened(file: Path | Stored, where: str, most: int = MOST_PIXELS) -> Iterator[Image.Image]:
    r"""An image, the way up that its camera noted.

    Raises:
        UserError: it is missing, damaged, or has more than `most` pixels.
    """
    if isinstance(file, Path):
        _present(file, where)
    try:
        with _open(file) as image:
            check_pixels(file, where, *image.size, most)
            ImageOps.exif_transpose(image, in_place=True)
            yield image
    except UserError:
        raise
    except _UNREADABLE as error:
        reason = "no kind of picture that is known" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{where}: '{file}' is not a readable image ({reason}). Repair or remove it.") from error


def _open(file: Path | Stored) -> Image.Image:
    r"""Opens an image without Pillow's own bound, which cannot be raised for one file."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(io.BytesIO(file.content) if isinstance(file, Stored) else file, formats=_formats())
    finally:
        Image.MAX_IMAGE_PIXELS = before


@cache
def _formats() -> tuple[str, ...]:
    r"""The formats that are opened, whatever a file is called; PostScript would be run as a program."""
    Image.init()
    return tuple(name for name in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM") if name in Image.OPEN)


def _mode(image: Image.Image, where: str, known: Mapping[str, str]) -> str:
    if image.mode not in known:
        name = Path(getattr(image, "filename", "")).name
        kinds = "8-bit grey, RGB or RGBA" if known is _EIGHT_BITS else "grey (8 bits, 16 bits or float) or 8-bit RGB"
        raise UserError(f"{where}: '{name}' has mode {image.mode}. Convert it to {kinds}.")
    return known[image.mode]


def _resized(sides: tuple[int, int], size: int) -> tuple[int, int]:
    width, height = (max(size, round(side * size / min(sides))) for side in sides)
    return width, height


def _cropped(image: Image.Image, size: int) -> Image.Image:
    width, height = _resized(image.size, size)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def _channels_first(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


class _Arrays(Mapping[str, np.ndarray]):
    r"""The arrays of an .npz file, each read on access."""

    def __init__(self, path: Path, where: str, most: int) -> None:
        self._path, self._where, self._most = path, where, most
        with self._opened() as archive:
            self._names = tuple(archive.files)

    @contextmanager
    def _opened(self) -> Iterator[np.lib.npyio.NpzFile]:
        try:
            # an open file, since NumPy does not close a damaged one that it opened itself
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                yield archive
        except DAMAGED as error:
            raise UserError(
                f"{self._where}: '{self._path}' is not a readable .npz file without pickled objects ({error})."
            ) from error

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        with self._opened() as archive:
            packed = archive.zip
            assert packed is not None  # open here
            member = name if name in packed.namelist() else f"{name}.npy"
            check_array(packed, member, self._where, self._path.stat().st_size, self._most)
            return np.asarray(archive[name])

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_archive(path: Path, where: str, most: int = MOST_BYTES) -> Mapping[str, np.ndarray]:
    r"""The arrays of an .npz file by name, each read on access; pickled objects are refused.

    Args:
        path: the file. where: the key that named it.
        most: bytes that any array may unpack to; one that is usually compressed may be larger.

    Raises:
        UserError: the file is missing or damaged, now or when an array is read.
    """
    _present(path, where)
    return _Arrays(path, where, most)


def read_array(path: Path, where: str) -> np.ndarray:
    r"""The array of an .npy file; pickled objects are refused.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    _present(path, where)
    try:
        with path.open("rb") as file:
            check_header(file, path.stat().st_size)
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except DAMAGED as error:
        raise UserError(f"{where}: '{path}' is not a readable .npy file without pickled objects ({error}).") from error


def _present(path: Path, where: str) -> None:
    if not path.is_file():
        raise UserError(f"{where}: {f'{path} is not a file.' if path.exists() else absent(path)}")
