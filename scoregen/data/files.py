r"""Pictures and arrays in files: one reader for each kind, whose messages name the file.

`where` is the key that named the file, such as data.path: messages begin with it.
"""

import lzma
import struct
import tokenize
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scoregen.data.bounds import MOST_BYTES, MOST_PIXELS, check_array, check_header, check_pixels
from scoregen.data.decode import Beyond, Kind, eight_bits, fractions, kind_of
from scoregen.data.index import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from scoregen.data.index import files_of
from scoregen.data.opening import Damaged, damage, opened, present
from scoregen.data.opening import Stored as Stored
from scoregen.data.tiff import is_tiff, read_tiff
from scoregen.errors import UserError

DAMAGED = (  # what NumPy raises for a file that is not an archive, or a damaged one
    *(ValueError, TypeError, OSError, AttributeError, EOFError, SyntaxError, NotImplementedError),
    *(BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
    *(RuntimeError, MemoryError, OverflowError),  # an encrypted one; a header that claims too much
)
_EXACT = {mode: mode for mode in ("L", "RGB", "I;16", "F")}


def image_files(folder: Path, where: str = "data.path", suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[Path]:
    r"""The images of a folder, searched recursively and sorted by name; hidden files and folders are left out.

        Files of other kinds, but for texts, are counted on standard error.

    Raises:
        UserError: there are none.
    """
    return files_of(folder, suffixes, where)[:]


def read_picture(
    file: Path | Stored,
    where: str = "data.path",
    mode: str | None = None,
    size: int | None = None,
    most: int = MOST_PIXELS,
) -> Tensor:
    r"""The bytes (C, H, W) of a picture, grey or RGB, the way up that its camera noted; more than 8 bits are refused.

    Args:
        mode: of Pillow, "RGB" or "L", to convert to; None for grey or RGB as in the file.
        size: shorter side after resizing, then cropped square; None for the picture as it is.
        most: pixels that it may have.

    Raises:
        UserError: the file is missing, damaged, too large or of another kind.
    """
    kind, pixels = read_deep(file, where, mode, size, most)
    if kind.deep:
        raise UserError(f"{where}: '{file}' has more than 8 bits. Convert it to grey or RGB of 8 bits.")
    return pixels


def read_deep(
    file: Path | Stored, where: str, mode: str | None = None, size: int | None = None, most: int = MOST_PIXELS
) -> tuple[Kind, Tensor]:
    r"""What a file holds, and its pixels (C, H, W): bytes; 16 bits as fractions of full scale; or floats.

    Args:
        where, mode, size, most: as in `read_picture`.
    """
    kind, image = _read(file, where, most, size)
    if isinstance(image, Image.Image):
        image = image if mode in (None, image.mode) else image.convert(mode)
        return kind, _channels_first(_cropped(image, size) if size else image)
    return kind, _deep(image, {"L": 1, "RGB": 3, None: kind.channels}[mode], size)


def picture_kind(file: Path | Stored, where: str = "data.path", most: int = MOST_PIXELS) -> Kind:
    r"""What `read_picture` would give, from the header alone."""
    try:
        with opened(file, where, most) as image:
            return kind_of(image, where, file)
    except Beyond as beyond:
        return _by_tifffile(file, where, most, beyond, pixels=False)[0]


def _read(file: Path | Stored, where: str, most: int, size: int | None) -> tuple[Kind, Image.Image | np.ndarray]:
    r"""A picture: one of Pillow's of bytes, or deep pixels (H, W, C)."""
    try:
        with opened(file, where, most) as image:
            kind = kind_of(image, where, file)
            if size:
                check_pixels(file, where, *_resized((kind.width, kind.height), size), most)
            return kind, np.array(image)[..., None] if kind.deep else eight_bits(image, kind, where)
    except Beyond as beyond:
        kind, pixels = _by_tifffile(file, where, most, beyond, pixels=True)
        assert pixels is not None
        if size:
            check_pixels(file, where, *_resized((kind.width, kind.height), size), most)
        return kind, pixels


def _by_tifffile(
    file: Path | Stored, where: str, most: int, beyond: Beyond, *, pixels: bool
) -> tuple[Kind, np.ndarray | None]:
    content = file if isinstance(file, Path) else file.content
    if not is_tiff(content):
        raise UserError(f"{beyond} Write it as TIFF, or with 8 bits.") from beyond
    with damage(file, where):
        return read_tiff(content, where, str(file), most, pixels)


def _deep(pixels: np.ndarray, channels: int, size: int | None) -> Tensor:
    r"""Deep pixels (H, W, C) as float32 (channels, H, W), resized and cropped where a size is given."""
    x = torch.from_numpy(np.moveaxis(fractions(pixels), -1, 0).copy())
    if size:
        bands = [np.array(_cropped(Image.fromarray(band), size)) for band in x.numpy()]
        x = torch.from_numpy(np.stack(bands)).clamp(x.min(), x.max())  # bicubic overshoots
    if channels == len(x):
        return x
    return x.expand(channels, -1, -1).contiguous() if len(x) == 1 else x.mean(0, keepdim=True)


def read_exact(file: Path, where: str, most: int = MOST_PIXELS) -> Tensor:
    r"""The values (C, H, W) of a picture without any conversion: uint8, uint16 (grey) or float32 (grey).

    Args:
        most: pixels that it may have.

    Raises:
        UserError: the file is missing, damaged, or of a kind that would have to be converted (palette, RGBA, ...).
    """
    with opened(file, where, most) as image:
        return _channels_first(image.convert(_mode(image, where)))


def picture_shape(
    file: Path | Stored, where: str = "data.path", exact: bool = False, most: int = MOST_PIXELS
) -> tuple[int, int, int]:
    r"""The shape (C, H, W) that `read_picture`, or `read_exact`, would give; reads the header alone."""
    if not exact:
        kind = picture_kind(file, where, most)
        return kind.channels, kind.height, kind.width
    with opened(file, where, most) as image:
        return Image.getmodebands(_mode(image, where)), image.height, image.width


def as_fraction(pixels: Tensor) -> Tensor:
    r"""Unsigned integers as fractions of full scale (bytes: x/255), floats as they are; float32."""
    return pixels.float() if pixels.is_floating_point() else pixels.float() / torch.iinfo(pixels.dtype).max


def _mode(image: Image.Image, where: str) -> str:
    if image.mode not in _EXACT:
        name = Path(getattr(image, "filename", "")).name
        kinds = "grey (8 bits, 16 bits or float) or 8-bit RGB"
        raise UserError(f"{where}: '{name}' has mode {image.mode}. Convert it to {kinds}.")
    return _EXACT[image.mode]


def _resized(sides: tuple[int, int], size: int) -> tuple[int, int]:
    width, height = (max(size, round(side * size / min(sides))) for side in sides)
    return width, height


def _cropped(image: Image.Image, size: int) -> Image.Image:
    width, height = _resized(image.size, size)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def _channels_first(image: Image.Image) -> Tensor:
    pixels = np.asarray(image)
    return torch.from_numpy(pixels[None].copy() if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


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
    present(path, where)
    if path.suffix == ".npy":
        raise UserError(f"{where}: '{path}' holds one array, and is no .npz file. data=npy reads it.")
    return _Arrays(path, where, most)


def read_array(path: Path, where: str) -> np.ndarray:
    r"""The array of an .npy file; pickled objects are refused.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    present(path, where)
    try:
        with path.open("rb") as file:
            check_header(file, path.stat().st_size)
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except DAMAGED as error:
        raise Damaged(f"{where}: '{path}' is not a readable .npy file without pickled objects ({error}).") from error
