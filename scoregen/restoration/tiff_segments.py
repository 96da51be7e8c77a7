r"""Strips and tiles of TIFF files, unpacked also where tifffile needs the package imagecodecs for it.

LZW and PackBits are unpacked by Pillow, which is handed a segment as a picture of one row of bytes. The predictors:

    2, horizontal        differences along a row, of the same band; of floats those of their bits
    3, floating point    the bytes of a row sorted by significance, the highest first, then their differences

Reference: TIFF 6.0 (Adobe, 1992), sections 9, 13 and 14; Adobe Photoshop TIFF Technical Note 3 (2005), predictor 3.
"""

import io
import struct
import zlib
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from scoregen.data.bounds import MOST_PIXELS

_LZW, _PACKBITS = 5, 32773
_PILLOW, _ZLIB = (_LZW, _PACKBITS), (8, 32946)
_ZSTD = (34926, 50000)
_HORIZONTAL, _FLOATING = 2, 3


def needs_imagecodecs(page: Any) -> str | None:
    r"""What of a page can only be unpacked by imagecodecs, "compression ZSTD"; None where all can be without it."""
    from tifffile import TIFF

    own = page.fillorder == 1 and page.compression in (1, *_ZLIB, *_PILLOW)
    if page.compression in _PILLOW:
        own = own and _bytes_of(page) <= MOST_PIXELS
    if not own and not known(TIFF.DECOMPRESSORS, page.compression):
        return f"compression {_name(page.compression)}"
    if not known(TIFF.UNPREDICTORS, page.predictor) and not (own and page.predictor in (_HORIZONTAL, _FLOATING)):
        return f"predictor {_name(page.predictor)}"
    return None


def known(table: Any, kind: int) -> bool:
    r"""Whether tifffile has a program of this kind; for ZSTD it takes Python 3.14 for one, whatever runs."""
    if kind in _ZSTD and not any(find_spec(name) for name in ("imagecodecs", "compression")):
        return False
    try:
        table[kind]
    except (KeyError, ImportError):
        return False
    return True


def _name(kind: Any) -> str:
    return str(getattr(kind, "name", kind))


def segment(page: Any, data: bytes, index: int) -> tuple[np.ndarray, int, int, int]:
    r"""A strip or tile.

    Args:
        page: of a TiffFile. data: its bytes, packed. index: its number in the page.

    Returns:
        Values (rows, columns, bands) in the order of the machine, and band, row and column of the first one.
    """
    from tifffile import TIFF

    if known(TIFF.DECOMPRESSORS, page.compression) and known(TIFF.UNPREDICTORS, page.predictor):
        values, (layer, _, y, x, _), _ = page.decode(data, index, jpegtables=page.jpegtables)
        return values[0], layer, y, x
    height, width = _shape(page)
    across = -(-page.imagewidth // width)
    layer, place = divmod(index, across * -(-page.imagelength // height))
    y, x = place // across * height, place % across * width
    rows = height if page.is_tiled else min(height, page.imagelength - y)
    kind = page.dtype.newbyteorder(page.parent.byteorder)
    shape = (rows, width, 1 if page.axes == "SYX" else page.samplesperpixel)
    size = int(np.prod(shape)) * kind.itemsize
    values = without_predictor(_unpacked(data, int(page.compression), size), page.predictor, shape, kind)
    return values.astype(kind.newbyteorder("=")), layer, y, x


def _shape(page: Any) -> tuple[int, int]:
    r"""Rows and columns of the segments of a page."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _bytes_of(page: Any) -> int:
    r"""Of a segment, unpacked."""
    height, width = _shape(page)
    return int(height * width * page.dtype.itemsize) * (1 if page.axes == "SYX" else int(page.samplesperpixel))


def _unpacked(data: bytes, compression: int, size: int) -> bytes:
    r"""So many bytes of a segment.

    Raises:
        ValueError: it has fewer.
    """
    if compression in _ZLIB:
        data = zlib.decompressobj().decompress(data, size)
    elif compression in _PILLOW:
        data = _by_pillow(data, compression, size)
    if len(data) < size:
        raise ValueError(f"a strip or tile has {len(data)} of {size} bytes")
    return data[:size]


def _by_pillow(data: bytes, compression: int, size: int) -> bytes:
    r"""A segment as a grey picture of one row."""
    tags = {256: size, 257: 1, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags.items())
    content = struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data
    with Image.open(io.BytesIO(content + struct.pack("<H", len(tags)) + entries + bytes(4))) as image:
        return image.tobytes()


def without_predictor(data: bytes, predictor: int, shape: tuple[int, int, int], kind: np.dtype) -> np.ndarray:
    r"""The values of unpacked bytes, without their predictor."""
    rows, width, bands = shape
    if predictor == _FLOATING:
        steps = np.frombuffer(data, np.uint8).reshape(rows, -1, bands)
        planes = steps.cumsum(1, dtype=np.uint8).reshape(rows, kind.itemsize, width * bands)
        return np.ascontiguousarray(planes.swapaxes(1, 2)).view(kind.newbyteorder(">")).reshape(shape)
    values = np.frombuffer(data, kind).reshape(shape)
    if predictor == _HORIZONTAL:
        unsigned = np.dtype(f"u{kind.itemsize}")
        bits = values.view(unsigned.newbyteorder(kind.byteorder)).astype(unsigned)
        values = bits.cumsum(1, dtype=unsigned).view(kind.newbyteorder("="))
    return values
