r"""TIFF files as scenes: integers, floats and complex numbers, several pages and bands, with the tags of GeoTIFF.

Pages are read by rows: an uncompressed one is mapped, of others the strips or tiles that hold the rows are unpacked.
The result has the type, the bands, the compression and the tags of its source. What cannot be kept is refused by name,
but for a compression that cannot be written here: then the result has another one without losses, which is told.

Reference: TIFF 6.0 (Adobe, 1992); OGC GeoTIFF 1.1; GDAL's tags 42112 (metadata) and 42113 (nodata).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scoregen.data.bounds import check_pixels
from scoregen.data.intensity import nodata_number
from scoregen.data.opening import damage, present
from scoregen.errors import UserError
from scoregen.restoration.scenes import KEY, FileScene, Pieces, Plane
from scoregen.restoration.tiff_segments import segment
from scoregen.restoration.tiff_writing import check_kept, packing, shape_of, write_pages

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

SUFFIXES = (".tif", ".tiff")
_AXES = ("YX", "YXS", "SYX")
_NODATA = 42113
_LARGEST = 2**31  # pixels of a page: 46,000 x 46,000


@dataclass(frozen=True)
class Page:
    r"""How a page lies in its file.

    Args:
        axes: of its array. offset: of the first byte where it is mapped, else None.
    """

    axes: str
    offset: int | None


class Tiff(FileScene):
    r"""A TIFF file.

    Args:
        path: the file. name: of it in its folder.

    Raises:
        UserError: it is damaged, holds what cannot be restored or kept, or tifffile is missing.
    """

    def __init__(self, path: Path, name: str) -> None:
        present(path, KEY)
        self.path, self.name = path, name
        with self._opened() as file:
            check_kept(file, path)
            found: list[Any] = list(file.pages)
            pages = [(_page(page), _plane(page, path)) for page in found]
            self.order = file.byteorder
            self.changes = list(dict.fromkeys(change for page in found for change in packing(page).changes))
        self.pages, self.planes = [page for page, _ in pages], [plane for _, plane in pages]

    @contextmanager
    def _opened(self) -> Iterator["TiffFile"]:
        try:
            from tifffile import TiffFile
        except ImportError as error:
            raise UserError(
                f"{KEY}: '{self.path}' needs tifffile. Install it: pip install 'scoregen[tiff]'."
            ) from error
        with damage(self.path, KEY), TiffFile(self.path) as file:
            yield file

    def read(self, plane: int, first: int, last: int) -> np.ndarray:
        page, shape = self.pages[plane], self.planes[plane]
        if page.offset is None:
            with self._opened() as file:
                return _unpacked(file.pages[plane], first, last)
        kind = shape.dtype.newbyteorder(self.order)
        with damage(self.path, KEY):
            array = np.memmap(self.path, kind, "r", page.offset, shape_of(page.axes, shape))
        return _by_channel(np.asarray(array), page.axes, first, last).astype(shape.dtype)

    def is_whole(self, out: Path) -> bool:
        try:
            result = Tiff(self.place(out), self.name)
        except (UserError, OSError):
            return False
        same = [plane.shape for plane in result.planes] == [plane.shape for plane in self.planes]
        return same and result.is_complete() and self.has_whole_deviations(out)

    def is_complete(self) -> bool:
        r"""Whether all the strips and tiles lie inside the file and can be unpacked."""
        with self._opened() as file:
            size = self.path.stat().st_size
            pages: list[Any] = list(file.pages)
            ends = [o + n for page in pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > size:
            return False
        packed = (k for k, page in enumerate(self.pages) if page.offset is None)
        try:
            for k in packed:
                for first in range(0, self.planes[k].height, 512):
                    self.read(k, first, min(first + 512, self.planes[k].height))
        except UserError:
            return False
        return True

    def write_values(self, out: Path, pieces: Pieces) -> None:
        with self._opened() as file:
            write_pages(self.place(out), file, self.planes, pieces)


def _page(page: "TiffPage") -> Page:
    return Page(page.axes, page.dataoffsets[0] if page.is_memmappable else None)


def _plane(page: "TiffPage", path: Path) -> Plane:
    if page.axes not in _AXES or page.dtype is None or page.dtype.kind not in "uifc":
        raise UserError(
            f"{KEY}: page {page.index} of '{path}' has axes {page.axes} and values {page.dtype}. Give pages (H, W) or "
            "with bands, of integers, floats or complex numbers."
        )
    check_pixels(path, KEY, page.imagewidth, page.imagelength, _LARGEST)
    nodata = page.tags.get(_NODATA)
    return Plane(
        page.samplesperpixel,
        page.imagelength,
        page.imagewidth,
        np.dtype(page.dtype.newbyteorder("=")),
        None if nodata is None else nodata_number(str(nodata.value), path, KEY),
    )


def _by_channel(array: np.ndarray, axes: str, first: int, last: int) -> np.ndarray:
    r"""Rows of the array of a page, (C, rows, W)."""
    if axes == "SYX":
        return array[:, first:last]
    return array[None, first:last] if axes == "YX" else np.moveaxis(array[first:last], -1, 0)


def _unpacked(page: Any, first: int, last: int) -> np.ndarray:
    r"""Rows of a page whose strips or tiles are unpacked, (C, rows, W)."""
    height = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
    down = -(-page.imagelength // height)
    layers = page.samplesperpixel if page.axes == "SYX" else 1
    shape = page.samplesperpixel, last - first, page.imagewidth
    out = np.full(shape, page.nodata, page.dtype.newbyteorder("="))  # what a sparse file leaves out, as GDAL reads it
    rows = range(first // height, -(-last // height))
    wanted = [(s * down + r) * across + c for s in range(layers) for r in rows for c in range(across)]
    file = page.parent.filehandle
    offsets, counts = ([values[k] for k in wanted] for values in (page.dataoffsets, page.databytecounts))
    for data, index in file.read_segments(offsets, counts, wanted):
        if data is None:
            continue
        found, layer, y, x = segment(page, data, index)
        low, high, wide = max(y, first), min(y + len(found), last), min(found.shape[1], page.imagewidth - x)
        values = np.moveaxis(found[low - y : high - y, :wide], -1, 0)
        channels = slice(layer, layer + 1) if layers > 1 else slice(None)
        out[channels, low - first : high - first, x : x + wide] = values
    return out
