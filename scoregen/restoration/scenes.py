r"""Scenes: files of images with speckle, read a few rows at a time, and written as they were found.

A scene is a file. It holds planes, images (C, H, W) that are restored one by one: the pages of a TIFF file, the rows of
an array. What a scene cannot give back as it was, it refuses when it is opened.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from scoregen.storage import write_atomically
from scoregen.whole import is_array

KEY = "images"  # that names the files, in messages


@dataclass(frozen=True)
class Plane:
    r"""An image of a scene.

    Args:
        channels, height, width: of it. dtype: of its values. nodata: value that the file says to mean "no data".
    """

    channels: int
    height: int
    width: int
    dtype: np.dtype
    nodata: float | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        r"""(C, H, W)."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Piece:
    r"""Restored rows of a plane.

    Args:
        first: row. values: (C, rows, W) in the type of the file. deviation: of its values, float32, or None.
    """

    first: int
    values: np.ndarray
    deviation: np.ndarray | None


class Pieces(Protocol):
    r"""The restored rows of a scene, in their order."""

    def of(self, plane: int) -> Iterator[Piece]:
        r"""Those of a plane."""
        ...


class Scene(ABC):
    r"""A file of images.

    Attributes:
        name: in the folder, also that of the result.
        planes: its images.
        whole: whether a plane is read and written all at once; False where a few rows are.
        keeps: whether the pieces stay beside its result.
        changes: what its result has otherwise than the file, to be told.
    """

    name: str
    planes: list[Plane]
    whole: bool = False
    keeps: bool = False
    changes: Sequence[str] = ()

    @abstractmethod
    def read(self, plane: int, first: int, last: int) -> np.ndarray:
        r"""Rows first .. last - 1 of a plane, (C, rows, W), as they stand in the file."""

    @abstractmethod
    def is_whole(self, out: Path) -> bool:
        r"""Whether its result is there and can be read."""

    @abstractmethod
    def place(self, out: Path) -> Path:
        r"""The file of its result."""

    @abstractmethod
    def write(self, out: Path, pieces: Pieces) -> None:
        r"""Writes its result, and the deviations where the pieces have some, each whole or not at all."""

    def key(self, plane: int) -> tuple[int, int]:
        r"""What the noise of a plane is keyed by: the same in whatever company it comes."""
        return plane, zlib.crc32(self.name.encode())

    def piece(self, out: Path, plane: int, first: int) -> Path:
        r"""The file of restored rows, until the result is written."""
        return out / "parts" / self.name / f"{plane:06d}_{first:06d}.npz"


class FileScene(Scene):
    r"""A file of its own, whose result is images/NAME, and whose deviations are std/NAME.npy; abstract."""

    def place(self, out: Path) -> Path:
        return out / "images" / self.name

    def deviation_place(self, out: Path, plane: int) -> Path:
        r"""The file of the deviations of a plane."""
        page = f".{plane}" if len(self.planes) > 1 else ""
        return out / "std" / f"{self.name}{page}.npy"

    def has_whole_deviations(self, out: Path) -> bool:
        r"""Whether no file of deviations is damaged; there may be none."""
        places = ((self.deviation_place(out, k), shape_of(plane)) for k, plane in enumerate(self.planes))
        return all(not place.exists() or is_array(place, shape) for place, shape in places)

    def write(self, out: Path, pieces: Pieces) -> None:
        for k, plane in enumerate(self.planes):
            first = next(pieces.of(k))
            if first.deviation is not None:
                rows = (piece.deviation for piece in pieces.of(k) if piece.deviation is not None)
                write_rows(self.deviation_place(out, k), shape_of(plane), np.dtype(np.float32), rows)
        self.write_values(out, pieces)

    @abstractmethod
    def write_values(self, out: Path, pieces: Pieces) -> None:
        r"""Writes the restored values."""


def shape_of(plane: Plane) -> tuple[int, ...]:
    r"""(H, W), or (H, W, C)."""
    return (plane.height, plane.width) if plane.channels == 1 else (plane.height, plane.width, plane.channels)


def interleaved(values: np.ndarray) -> np.ndarray:
    r"""(C, rows, W) as (rows, W) or (rows, W, C)."""
    return values[0] if len(values) == 1 else np.ascontiguousarray(np.moveaxis(values, 0, -1))


def write_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype, rows: Iterable[np.ndarray]) -> None:
    r"""Writes pieces of rows (C, rows, W) as one .npy (H, W) or (H, W, C), a piece in memory at a time."""

    def write(file: IO[bytes]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for values in rows:
            file.write(interleaved(values).astype(dtype, copy=False).tobytes())

    write_atomically(path, write)
