r"""Scenes of measurements in files, of which windows are read: TIFF pages and .npy arrays, mapped where they can be.

Values are floats, complex numbers or unsigned integers of 8 and 16 bits. An uncompressed TIFF page and an .npy array
are mapped, so that a window costs its own bytes. Other pages are unpacked as a whole and kept, up to 1 GiB a process.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scoregen.data.bounds import check_pixels
from scoregen.data.intensity import nodata_number
from scoregen.data.layout import LAST, Layout, layout_of
from scoregen.data.mapped import map_array
from scoregen.data.opening import damage, present
from scoregen.errors import UserError
from scoregen.parallel import say_once

if TYPE_CHECKING:
    from tifffile import TiffFile

KEY = "data.path"
TIFF, NPY = (".tif", ".tiff"), (".npy",)
_NODATA = 42113  # GDAL's tag
_AXES = ("YX", "YXS", "SYX")
_KEPT = 2**30  # bytes of unpacked pages
_LARGEST = 2**31  # pixels of a page: 46,000 x 46,000


@dataclass(frozen=True)
class Plane:
    r"""One image (C, H, W) of a file.

    Args:
        path: the file. page: of a TIFF, 0 of an array. axes: of the stored array, "YX", "YXS" or "SYX".
        shape: (C, H, W). dtype: of its values. nodata: value that its file states for pixels without data, or None.
        mapped: whether windows are read without unpacking the whole.
    """

    path: Path
    page: int
    axes: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    nodata: float | None
    mapped: bool

    def window(self, top: int, left: int, size: int) -> np.ndarray:
        r"""Values (C, size, size) as they stand in the file, a copy in the byte order of this machine."""
        stored, rows, columns = self._array(), slice(top, top + size), slice(left, left + size)
        if self.axes == "SYX":
            found = stored[:, rows, columns]
        else:
            found = stored[rows, columns]
            found = found[None] if self.axes == "YX" else np.moveaxis(found, -1, 0)
        return np.array(found, dtype=self.dtype.newbyteorder("="), order="C")

    def _array(self) -> np.ndarray:
        if self.path.suffix.lower() in NPY:
            return map_array(self.path, KEY).rows
        return _mapped(self.path, self.page) if self.mapped else _unpacked(self.path, self.page)


def planes_of(path: Path, layout: Layout | None) -> list[Plane]:
    r"""The images of a file: each page of a TIFF, or an array (H, W), (H, W, C) or (C, H, W).

    Raises:
        UserError: it is damaged, holds other values, or tifffile is missing.
    """
    if path.suffix.lower() in NPY:
        return [_plane_of_array(path, layout)]
    present(path, KEY)
    with _opened(path) as file:
        pages: list[Any] = list(file.pages)
        whole = [(k, page) for k, page in enumerate(pages) if not (page.is_reduced or page.is_mask)]
        if beside := len(pages) - len(whole):
            say_once(f"{KEY}: '{path}' has {beside} overviews or masks beside its scenes, which are left out.")
        return [_plane_of_page(path, k, page) for k, page in whole]


def _plane_of_array(path: Path, layout: Layout | None) -> Plane:
    array = map_array(path, KEY)
    if len(array.shape) not in (2, 3):
        raise UserError(f"{KEY}: '{path}' must be (H, W), (H, W, C) or (C, H, W), got {array.shape}. Reshape it.")
    found = layout_of(array.shape, layout if len(array.shape) == 3 else None, f"'{path}'")
    axes = "YX" if found is None else "YXS" if found == LAST else "SYX"
    return _plane(path, 0, axes, array.shape, array.dtype, None, True)


def _plane_of_page(path: Path, number: int, page: Any) -> Plane:
    tag = page.tags.get(_NODATA)
    nodata = None if tag is None else nodata_number(str(tag.value), path, KEY)
    if page.axes not in _AXES or page.dtype is None:
        raise UserError(f"{KEY}: page {number} of '{path}' has axes {page.axes}. Give pages (H, W), or with bands.")
    if page.photometric == 0:
        raise UserError(f"{KEY}: '{path}' says that 0 is white (WhiteIsZero). Invert it, and say that 0 is black.")
    return _plane(path, number, page.axes, page.shape, page.dtype, nodata, page.is_memmappable)


def _plane(
    path: Path, page: int, axes: str, shape: tuple[int, ...], dtype: np.dtype, nodata: float | None, mapped: bool
) -> Plane:
    if not (dtype.kind in "fc" or (dtype.kind == "u" and dtype.itemsize <= 2)):
        raise UserError(
            f"{KEY}: '{path}' has values {dtype}. Write floats, complex numbers, or unsigned integers of 8 or 16 bits."
        )
    sides = dict(zip(axes, shape, strict=True))
    check_pixels(path, KEY, sides["X"], sides["Y"], _LARGEST)
    return Plane(path, page, axes, (sides.get("S", 1), sides["Y"], sides["X"]), dtype, nodata, mapped)


@contextmanager
def _opened(path: Path) -> Iterator["TiffFile"]:
    try:
        from tifffile import TiffFile
    except ImportError as error:
        raise UserError(f"{KEY}: '{path}' needs tifffile. Install it: pip install 'scoregen[tiff]'.") from error
    with damage(path, KEY), TiffFile(path) as file:
        yield file


@lru_cache(maxsize=256)
def _mapped(path: Path, page: int) -> np.ndarray:
    with _opened(path) as file:
        found: Any = file.pages[page]
        kind = found.dtype.newbyteorder(file.byteorder)
        return np.memmap(path, kind, "r", found.dataoffsets[0], found.shape)


class _Unpacked:
    r"""Pages in memory, the ones that were used last."""

    def __init__(self, most: int) -> None:
        self.most, self.pages = most, dict[tuple[Path, int], np.ndarray]()

    def __call__(self, path: Path, page: int) -> np.ndarray:
        found = self.pages.pop((path, page), None)
        if found is None:
            with _opened(path) as file:
                found = file.pages[page].asarray()
        self.pages[path, page] = found
        while len(self.pages) > 1 and sum(array.nbytes for array in self.pages.values()) > self.most:
            del self.pages[next(iter(self.pages))]
        return found


_unpacked = _Unpacked(_KEPT)


def missing(values: np.ndarray, marks: tuple[float, ...]) -> bool:
    r"""Whether some values are not finite, or equal to a mark of pixels without data."""
    return not np.isfinite(values).all() or any(bool((values == mark).any()) for mark in marks if not math.isnan(mark))
