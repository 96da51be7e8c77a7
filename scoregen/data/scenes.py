r"""Scenes of measurements of any size in a folder, from which windows are drawn at random places, without resizing.

Resizing averages neighbouring pixels, and so changes the speckle. A window keeps it. Window k of a scene is at a place
that is a hash of k, so that a sample is the same whenever it is drawn; where it holds pixels without data, the next
places of its own are tried.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scoregen import checks
from scoregen.data import identity
from scoregen.data.augment import Augmentation
from scoregen.data.base import Dataset, Held, LazyDataset, Source
from scoregen.data.index import Files, files_of
from scoregen.data.intensity import Unit, check_decibels, full_scale, intensity_of, stated_intensity
from scoregen.data.layout import Layout
from scoregen.data.parts import ALL, AUTO, FOLDERS, NONE, Name, is_path, part_of
from scoregen.data.scene_files import KEY, NPY, TIFF, Plane, missing, planes_of
from scoregen.data.units import Range, as_range, check_units, percent
from scoregen.errors import UserError, absent
from scoregen.keys import derive_seed
from scoregen.parallel import say_once

_TRIES = 64  # places of a window with pixels without data
_LOOKED = 16  # windows that are read at the start
_DARK = 8  # integers that stay below this part of their full scale are told


class Scenes(Source):
    r"""Windows of the scenes of a folder: TIFF of 8 or 16 bits, floats or complex numbers, and .npy arrays.

    Sub-folders train and test (or val), and no others, are the parts. Without them a tenth of the files is the test
    part: windows of one scene overlap. Each page of a TIFF is a scene, apart from overviews and masks.

    Args:
        path: the folder, searched recursively, or one file.
        size: side of the windows, in pixels.
        cover: windows for each `size` x `size` pixels of a scene, on average.
        unit: of the values: "intensity", "amplitude" (squared when read) or "db". Complex values stay complex.
        scale: value in the files that becomes 1; None: full scale of integers, 1 of others, as in `restore`.
        range: of the intensities after that; None: [0, inf].
        nodata: value of pixels without data, besides NaN and what a file says.
        layout: of arrays, where their channels are; None where the shape tells.
        augmentation: applied to training batches.
        test, validation: "auto", "none", a path, and for test "all".

    Raises:
        ValueError: size or cover out of range.
        UserError: a scale that is no intensity; no scenes, too small ones, other values or other numbers of channels;
            names the file.
    """

    argument_attributes: ClassVar[dict[str, str]] = {**Source.argument_attributes, "range": "range_from"}

    def __init__(
        self,
        path: str,
        size: int = 64,
        cover: float = 4.0,
        unit: Unit = "intensity",
        scale: float | None = None,
        range: Sequence[float] | None = None,
        nodata: float | None = None,
        layout: Layout | None = None,
        augmentation: Augmentation | None = None,
        test: Held = AUTO,
        validation: Held = AUTO,
    ) -> None:
        super().__init__(augmentation, test, validation)
        checks.whole(1, size=size)
        checks.positive(cover=cover)
        checks.one_of(("intensity", "amplitude", "db"), unit=unit)
        if scale is not None:
            stated_intensity("data.scale", scale, unit)
        for key, choice in (("test", test), ("validation", validation)):
            if not (choice in (AUTO, ALL, NONE, None) or is_path(choice)):
                raise UserError(
                    f"data.{key}: a number of windows is not held out, got {choice}: those of one scene overlap. Give "
                    "auto (whole scenes), none, or a path."
                )
        self.path, self.size, self.cover, self.unit, self.scale = path, int(size), cover, unit, scale
        self.range_from, self.nodata, self.layout = range, nodata, layout
        place = Path(path)
        if not place.exists():
            raise UserError(f"{KEY}: {absent(place)}")
        self.name = place.resolve().stem
        single = place.is_file()
        self.files = Files.of(place.parent, [place.name]) if single else files_of(place, TIFF + NPY, KEY, "scenes")
        self._own = {name: Windows(self, places) for name, places in self._divided().items()}

    @property
    def range(self) -> Range:
        found = as_range(self.range_from, (0.0, math.inf))
        assert found is not None
        return found

    def load(self, train: bool) -> Dataset | None:
        return self._own.get("train" if train else "test")

    def load_validation(self) -> Dataset | None:
        return self._own.get("validation")

    def _divided(self) -> dict[Name, Tensor]:
        r"""The files of each part: of the folders of these names, or all of them but a tenth for tests."""
        tops = [self.files.name(k).partition("/")[0] for k in range(len(self.files))]
        known = {top: name for name, names in FOLDERS.items() for top in names}
        if all(top in known for top in tops):
            found = {name: torch.tensor([k for k, top in enumerate(tops) if known[top] == name]) for name in FOLDERS}
            return {name: places for name, places in found.items() if len(places)}
        if self.test_from != AUTO:
            return {"train": torch.arange(len(tops))}
        if len(tops) < 2:
            raise UserError("data.test: one scene cannot be held out as a whole. Give data.test=none, or a path.")
        return {"train": part_of(len(tops), True), "test": part_of(len(tops), False)}


class Windows(LazyDataset):
    r"""Windows of some scenes.

    Args:
        source: says how they are read. places: (N,) the numbers of the files.
    """

    def __init__(self, source: Scenes, places: Tensor) -> None:
        self.source, self.places, self.label, self.range = source, places, None, source.range
        found = [(int(k), plane) for k in places for plane in planes_of(source.files[int(k)], source.layout)]
        self.numbers, self.planes = [k for k, _ in found], [plane for _, plane in found]
        self._check_alike()
        area = source.size**2
        counts = [max(1, round(source.cover * p.shape[1] * p.shape[2] / area)) for p in self.planes]
        self.ends = list(accumulate(counts))
        self.decodes = not all(plane.mapped for plane in self.planes)
        some = self.read([k * len(self) // min(_LOOKED, len(self)) for k in range(min(_LOOKED, len(self)))])
        self._tell_dark(some)

    def _check_alike(self) -> None:
        first, size = self.planes[0], self.source.size
        for plane in self.planes:
            if min(plane.shape[1:]) < size:
                raise UserError(
                    f"data.size: '{plane.path}' has {plane.shape[1]} x {plane.shape[2]} pixels, fewer than data.size="
                    f"{size}. Lower it, or leave the file out."
                )
            if (plane.shape[0], plane.dtype.kind) != (first.shape[0], first.dtype.kind):
                raise UserError(
                    f"{KEY}: scenes must be alike, but '{first.path}' has {first.shape[0]} channels of {first.dtype}, "
                    f"'{plane.path}' {plane.shape[0]} of {plane.dtype}. Convert them."
                )

    def _tell_dark(self, some: Tensor) -> None:
        r"""Says that integers without a scale stay far below their full one, which becomes 1.

        Args:
            some: windows, in units of the full scale.
        """
        full = full_scale(self.planes[0].dtype, self.source.unit)
        if self.source.scale is not None or full is None:
            return
        most = full * float(some.max()) ** (0.5 if self.source.unit == "amplitude" else 1)
        if _DARK * most < full:
            say_once(
                f"data.scale: the integers of '{self.source.name}' reach {most:.0f} in {len(some)} windows, and their "
                f"full scale, {full:.0f}, becomes 1. Give data.scale=VALUE, the value that should be 1."
            )

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.planes[0].shape[0], self.source.size, self.source.size

    def units(self, x: Tensor) -> Tensor:
        return x  # complex ones too

    def read(self, places: list[int]) -> Tensor:
        kind = torch.complex64 if self.planes[0].dtype.kind == "c" else torch.float32
        found = [self._one(place) for place in places]
        return torch.stack(found) if found else torch.empty(0, *self.shape, dtype=kind)

    def _one(self, place: int) -> Tensor:
        number = bisect_right(self.ends, place)
        plane, size = self.planes[number], self.source.size
        window = place - (self.ends[number - 1] if number else 0)
        marks = tuple(mark for mark in (plane.nodata, self.source.nodata) if mark is not None)
        for attempt in range(_TRIES):
            draw, (_, height, width) = derive_seed(self.numbers[number], plane.page, window, attempt), plane.shape
            top, left = (draw >> 32) % (height - size + 1), (draw & 0xFFFFFFFF) % (width - size + 1)
            values = plane.window(top, left, size)
            if not missing(values, marks):
                return self._in_units(values, plane)
        raise UserError(
            f"{KEY}: window {window} of '{plane.path}' has pixels without data at {_TRIES} random places. Cut the "
            "scene to where it has data, or lower data.size."
        )

    def _in_units(self, values: np.ndarray, plane: Plane) -> Tensor:
        r"""Intensities as float32, or complex amplitudes, in units of the scale."""
        unit, scale = self.source.unit, self.source.scale
        if plane.dtype.kind == "c":
            return torch.from_numpy(values.astype(np.complex128) / (scale or 1.0)).to(torch.complex64)
        scale = full_scale(plane.dtype, unit) if scale is None else scale
        _check(values, unit, f"'{plane.path}'")
        x = intensity_of(values, unit)
        y = torch.from_numpy(x if scale is None else x / stated_intensity("data.scale", scale, unit)).float()
        check_units(y, self.range, f"'{plane.path}'")
        return y

    def entries(self) -> identity.Entries:
        names = (self.source.files.name(int(place)) for place in self.places)
        return identity.of_files(self.source.files.folder, names, len(self.places))

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        s = self.source
        told = f"{self.shape} {s.cover} {s.unit} {s.scale} {self.range} {s.nodata} {s.layout}"
        return identity.fingerprint([*self.entries(), (identity.NO_FILE, told)])


def _check(values: np.ndarray, unit: Unit, name: str) -> None:
    r"""Refuses values that are no intensities, amplitudes or decibels."""
    if unit == "db":
        check_decibels(values, "data.nodata", name)
    elif (negative := values < 0).any():
        raise UserError(
            f"data.unit: {name} has negative values ({percent(float(negative.mean()))} of a window, down to "
            f"{values.min():.4g}), and unit={unit} is >= 0. Give data.unit=db for decibels, or data.nodata=VALUE for "
            "the value of pixels without data."
        )
