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

ANYWHERE: Range = (-math.inf, math.inf)
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
        x = torch.from_numpy(np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("=")))
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
    return Reading(found, stated or (None if vectors else UNIT))


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
            check_units(x, self.how.range or ANYWHERE, self.name + some)
        tell_flat(self.units(x), self.how.range, self.name + some)
        self._trusted |= not some

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
