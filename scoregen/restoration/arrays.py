r"""Arrays of NumPy as scenes: an .npy of one image or several, and the `images` of an .npz.

A file that is not compressed is mapped: rows are read when they are used.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scoregen.data.files import read_archive
from scoregen.data.layout import LAST, Layout, layout_of
from scoregen.data.mapped import Mapped, map_array, map_member
from scoregen.errors import UserError
from scoregen.restoration.scenes import KEY, FileScene, Pieces, Plane, Scene
from scoregen.storage import write_atomically
from scoregen.whole import is_archive, is_array

_KINDS = "uifc"  # of NumPy's types


class Stack:
    r"""Images in one array (H, W), (N, H, W), (N, H, W, C) or (N, C, H, W).

    Args:
        array: it, or where it is in a file. name: of it, for messages.
        layout: where channels are; None where the shape tells.

    Raises:
        UserError: another shape or type, or a shape that does not tell.
    """

    def __init__(self, array: np.ndarray | Mapped, name: str, layout: Layout | None) -> None:
        shape = tuple(array.shape)
        if len(shape) not in (2, 3, 4) or 0 in shape or array.dtype.kind not in _KINDS:
            raise UserError(
                f"{KEY}: {name} must be (H, W), (N, H, W), (N, H, W, C) or (N, C, H, W) of integers, floats or complex "
                f"numbers, got {shape} of {array.dtype}."
            )
        if len(shape) == 3 and shape[2] <= 4 < min(shape[:2]):
            raise UserError(
                f"{KEY}: {name} is {shape}, which would be {shape[0]} images of {shape[1]} x {shape[2]} pixels. Give "
                f"an image with channels four axes: {(1, *shape)}."
            )
        if len(shape) < 4 and layout is not None:
            raise UserError(f"layout: images of {name} have no channels, got layout={layout}. Leave it out.")
        self.array, self.shape = array, (1, *shape) if len(shape) == 2 else shape
        self.last = len(shape) == 4 and layout_of(shape[1:], layout, name, "layout") == LAST
        self.grey = len(shape) < 4
        a, b, c = (1, *self.shape[1:]) if self.grey else shape[1:]
        self.planes = [Plane(c, a, b, array.dtype) if self.last else Plane(a, b, c, array.dtype)] * self.shape[0]

    def read(self, plane: int, first: int, last: int) -> np.ndarray:
        r"""Rows of an image, (C, rows, W)."""
        # mapped anew: what a map has read counts as memory of the process until it is given up
        whole = replace(self.array).rows if isinstance(self.array, Mapped) else self.array
        image = whole.reshape(self.shape)[plane]
        if self.grey:
            return np.array(image[None, first:last])
        return np.array(np.moveaxis(image[first:last], -1, 0) if self.last else image[:, first:last])

    def laid_out(self, values: np.ndarray) -> np.ndarray:
        r"""An image (C, H, W) as the array has it."""
        return values[0] if self.grey else np.moveaxis(values, 0, -1) if self.last else values


class ArrayFile(FileScene):
    r"""An .npy file.

    Args:
        path: the file. name: of it in its folder. layout: where channels are; None where the shape tells.
    """

    def __init__(self, path: Path, name: str, layout: Layout | None = None) -> None:
        array = map_array(path, KEY)
        self.name, self.shape, self.stack = name, array.shape, Stack(array, f"'{path}'", layout)
        self.planes = self.stack.planes

    def read(self, plane: int, first: int, last: int) -> np.ndarray:
        return self.stack.read(plane, first, last)

    def is_whole(self, out: Path) -> bool:
        return is_array(self.place(out), self.shape) and self.has_whole_deviations(out)

    def write_values(self, out: Path, pieces: Pieces) -> None:
        dtype = self.planes[0].dtype

        def write(file: Any) -> None:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(file, header)
            for values in self._in_order(pieces):
                file.write(np.ascontiguousarray(values, dtype).tobytes())

        write_atomically(self.place(out), write)

    def _in_order(self, pieces: Pieces) -> Iterator[np.ndarray]:
        r"""The restored values in the order of the file."""
        by_channel = not (self.stack.grey or self.stack.last)
        for k, plane in enumerate(self.planes):
            for channel in range(plane.channels) if by_channel else (slice(None),):
                for piece in pieces.of(k):
                    values = piece.values[channel]
                    yield values if by_channel else self.stack.laid_out(values)


class Archive(Scene):
    r"""`images` of an .npz file; its result is restored.npz, with the deviations as `std` and what else there was.

    Args:
        path: the file. layout: where channels are; None where the shape tells.
    """

    keeps = True  # so that a larger archive goes on

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        self.name, self.path = path.name, path
        self.arrays = read_archive(path, KEY)
        if "images" not in self.arrays:
            raise UserError(f"{KEY}: '{path}' must hold 'images', got {sorted(self.arrays)}.")
        if "std" in self.arrays:
            raise UserError(f"{KEY}: '{path}' holds 'std', the name of the deviations of the result. Rename it.")
        mapped = map_member(path, "images", KEY)
        array = self.arrays["images"] if mapped is None else mapped
        self.shape, self.stack = array.shape, Stack(array, f"'images' of '{path}'", layout)
        self.planes = self.stack.planes

    def read(self, plane: int, first: int, last: int) -> np.ndarray:
        return self.stack.read(plane, first, last)

    def key(self, plane: int) -> tuple[int, int]:
        return 0, plane

    def place(self, out: Path) -> Path:
        return out / "restored.npz"

    def piece(self, out: Path, plane: int, first: int) -> Path:
        rows = f"_{first:06d}" if first else ""
        return out / "parts" / f"{plane:06d}{rows}.npz"

    def is_whole(self, out: Path) -> bool:
        return is_archive(self.place(out))

    def write(self, out: Path, pieces: Pieces) -> None:
        values: list[np.ndarray] = []
        deviations: list[np.ndarray] = []
        for k in range(len(self.planes)):
            parts = list(pieces.of(k))
            values.append(self.stack.laid_out(np.concatenate([part.values for part in parts], axis=1)))
            spread = [part.deviation for part in parts if part.deviation is not None]
            deviations += [self.stack.laid_out(np.concatenate(spread, axis=1))] if spread else []
        whole: dict[str, Any] = {name: self.arrays[name] for name in self.arrays if name != "images"}
        whole["images"] = np.stack(values).reshape(self.shape)
        if deviations:
            whole["std"] = np.stack(deviations).reshape(self.shape)
        write_atomically(self.place(out), lambda file: np.savez(file, **whole))
