r"""Rows of an array as samples: in a file or in memory, channels first, in the units of a range."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scoregen.data.indexed import LazyDataset
from scoregen.data.layout import LAST, Layout, layout_of, shape_of
from scoregen.data.mapped import Mapped
from scoregen.data.pictures import spread
from scoregen.data.units import UNIT, Range, check_units, in_range, tell_flat
from scoregen.errors import UserError
from scoregen.parallel import say_once

ANYWHERE: Range = (-math.inf, math.inf)
_ROUNDED = 1e-3  # of a standard deviation; more that float32 rounds off is told
_SEEN, _HASHED = 2**26, 2**26  # bytes that are looked at when the data are opened, and that make a fingerprint


@dataclass(frozen=True)
class Reading:
    r"""How an array becomes samples.

    Args:
        layout: of its samples. range: what bytes and 16 bits stand for, and where floats lie; None: floats anywhere.
    """

    layout: Layout | None
    range: Range | None

    def __call__(self, rows: np.ndarray) -> Tensor:
        r"""Samples (B, *S), uint8 or float32 in the units of the range, of rows of an array."""
        dtype = rows.dtype.newbyteorder("=") if rows.dtype.itemsize <= 8 else np.dtype(np.float64)
        x = torch.from_numpy(np.ascontiguousarray(rows, dtype=dtype))
        if x.dtype == torch.uint16:
            x = in_range(x.float() / 65535, self.range or UNIT)
        x = x if x.dtype == torch.uint8 else x.float()
        if self.layout == LAST:
            return x.movedim(-1, 1).contiguous()
        return x.unsqueeze(1) if x.ndim == 3 else x


def reading(shape: Sequence[int], dtype: np.dtype, layout: Layout | None, stated: Range | None, name: str) -> Reading:
    r"""How an array (N, ...) is read.

    Args:
        layout, stated: what `data.layout` and `data.range` say. name: of the array, for messages.

    Raises:
        UserError: its type is neither uint8, uint16 nor float, or its layout cannot be told.
    """
    if len(shape) < 2 or not (dtype.kind == "f" or (dtype.kind == "u" and dtype.itemsize <= 2)):
        raise UserError(
            f"data.path: {name} must be (N, ...) of uint8, uint16 or floats, got {tuple(shape)} of {dtype}. Integers "
            "of other types have no full scale: convert them, as with images.astype('uint8')."
        )
    found = layout_of(tuple(shape[1:]), layout, name)
    vectors = len(shape) == 2
    return Reading(found, stated or (None if vectors and dtype.kind == "f" else UNIT))


def full_scale(dtype: np.dtype) -> int | None:
    r"""The integer that the top of a range stands for; None of floats."""
    return int(np.iinfo(dtype).max) if dtype.kind == "u" else None


class Rows(LazyDataset):
    r"""The rows of an array as samples.

    Args:
        array: (N, ...), in a file or in memory. label: (N,) integers, or None. how: it is read. name: for messages.

    Raises:
        UserError: floats that are not finite or lie outside the range; of a large array, some rows are looked at here,
            and all when they are drawn.
    """

    def __init__(self, array: Mapped | np.ndarray, label: Tensor | None, how: Reading, name: str) -> None:
        self.array, self.label, self.how, self.name = array, label, how, name
        self.range = how.range or UNIT
        self._row = max(1, array.dtype.itemsize * math.prod(array.shape[1:]))
        self._trusted = array.dtype.kind == "u"
        if len(self):
            self._look()

    def __len__(self) -> int:
        return int(self.array.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(tuple(self.array.shape[1:]), self.how.layout)

    def read(self, places: list[int]) -> Tensor:
        x = self._drawn(places)
        if not self._trusted:
            check_units(x, self.how.range or ANYWHERE, self.name)
        return x

    def _drawn(self, places: list[int]) -> Tensor:
        rows = self.array.rows if isinstance(self.array, Mapped) else self.array
        return self.how(rows[places])

    def _look(self) -> None:
        r"""Checks all rows, or some where they are large, and tells what is odd about their values."""
        places = spread(len(self), max(1, _SEEN // self._row))
        x = self._drawn(places)
        some = f" (a sample of {len(places):,} of its {len(self):,} rows)" if len(places) < len(self) else ""
        if not self._trusted:
            self._check_rounding(places, x, self.name + some)
            check_units(x, self.how.range or ANYWHERE, self.name + some)
        tell_flat(self.units(x), self.how.range, self.name + some, full_scale(self.array.dtype))
        self._trusted |= not some

    def _check_rounding(self, places: list[int], x: Tensor, name: str) -> None:
        r"""Refuses values beyond float32, and says where its rounding takes much of how vectors vary."""
        if self.array.dtype.itemsize < 8:
            return
        rows = self.array.rows if isinstance(self.array, Mapped) else self.array
        exact = rows[places].astype(np.float64)
        if not bool(x.isfinite().all()) and bool(np.isfinite(exact).all()):
            raise UserError(
                f"data.path: values of {name} are as large as {np.abs(exact).max():.3g}, beyond float32. Give them in "
                "other units."
            )
        if exact.ndim != 2 or not bool(np.isfinite(exact).all()):
            return
        varies, error = exact.std(0), np.abs(exact - x.numpy()).max(0)
        share = float((error[varies > 0] / varies[varies > 0]).max(initial=0.0))
        if share > _ROUNDED:
            say_once(
                f"data.path: float32 rounds the values of {name} by up to {share:.2g} standard deviations of "
                "their column. Subtract the mean of each column first."
            )

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        r"""Of the shape, the type, and all rows, or of large data 64 MiB of them, evenly spread."""
        rows = self.array.rows if isinstance(self.array, Mapped) else self.array
        content = hashlib.sha256(str((self.array.shape, self.array.dtype.str, self.how)).encode())
        places = spread(len(self), max(1, _HASHED // self._row))
        for first in range(0, len(places), 1024):
            content.update(np.ascontiguousarray(rows[places[first : first + 1024]]).tobytes())
        return content.hexdigest()[:16]
