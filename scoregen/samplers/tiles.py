r"""A denoiser of small images on images of any size: overlapping tiles, blended smoothly at every call.

    D(u)_p = sum_k w_k(p) D(tile_k of u)_p,      sum_k w_k(p) = 1 at every pixel p

The state and its noise belong to the whole image, and only the denoiser sees tiles. So a sampler of any number of
calls draws one coherent image, without seams where independently drawn tiles would disagree.

In the overlap of two tiles, w rises as sin^2; it is 0 within a quarter of the overlap of an inner border, where a
network sees its padding instead of the image. A denoiser that commutes with translations and reaches no farther than
that quarter gives exactly what it gives on the whole image.
"""

import math
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from scoregen.checks import whole
from scoregen.models.protocol import DenoiserLike
from scoregen.models.wrapper import DenoiserWrapper
from scoregen.sde.path import as_time


def tile_starts(length: int, size: int, overlap: int) -> list[int]:
    r"""First pixels of the fewest evenly spread tiles that cover `length` with at least this overlap.

    Args:
        length: of the side in pixels, >= size. size: of a tile. overlap: overlap of neighbours, <= size / 2.
    """
    count = max(1, -(-(length - overlap) // (size - overlap)))
    return [round(i * (length - size) / max(1, count - 1)) for i in range(count)]


def tile_weights(length: int, size: int, overlap: int) -> Tensor:
    r"""The weight of every pixel of every tile along one side, (tiles, size) float64; they sum to 1 at every pixel."""
    starts = tile_starts(length, size, overlap)
    margin = overlap // 4
    ramp = torch.arange(size, dtype=torch.float64, device="cpu") + 0.5 - margin
    rise = (ramp / max(1, overlap - 2 * margin)).clamp(0, 1).mul(math.pi / 2).sin() ** 2
    weights = torch.ones(len(starts), size, dtype=torch.float64, device="cpu")
    weights[1:] *= rise
    weights[:-1] *= rise.flip(0)
    total = torch.zeros(length, dtype=torch.float64, device="cpu")
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + size] += weight
    return torch.stack([w / total[k : k + size] for k, w in zip(starts, weights, strict=True)])


class Side(NamedTuple):
    r"""The tiles along one side: their first pixels, and the weights of their pixels (tiles, size)."""

    starts: list[int]
    weights: Tensor


def _side(length: int, size: int, overlap: int) -> Side:
    return Side(tile_starts(length, size, overlap), tile_weights(length, size, overlap))


class Tiled(DenoiserWrapper):
    r"""D by overlapping square tiles, for images of any size.

        Images smaller than a tile are padded by reflection. The result does not depend on `batch`, up to the rounding
        of a network whose sums depend on it.

    Args:
        denoiser: D(u, s) of a process of images (B, C, size, size).
        size: side of a tile in pixels.
        overlap: overlap of neighbouring tiles; a quarter of the size unless given.
        batch: tiles at a time.
        channels: C of the denoiser; 1 denoises every channel of an image as an image of its own. None: as they come.

    Raises:
        ValueError: size < 1, overlap outside [0, size / 2], batch < 1; when called, other than (B, C, H, W) or C.
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        size: int,
        overlap: int | None = None,
        batch: int = 64,
        channels: int | None = None,
    ) -> None:
        super().__init__(denoiser)
        overlap = size // 4 if overlap is None else overlap
        whole(1, size=size, batch=batch)
        if not 0 <= overlap <= size / 2:
            raise ValueError(f"overlap must lie in 0..{size // 2}, half of the size of a tile, got overlap={overlap}.")
        self.size, self.overlap, self.batch, self.channels = size, overlap, batch, channels
        self._rows: Side | None = None

    def cut(self, height: int, first: int, last: int) -> tuple["Tiled", int, int]:
        r"""The same denoiser for some rows of an image, by the tiles and the weights of the whole image.

        Args:
            height: height of the image. first, last: it is right in rows first .. last - 1.

        Returns:
            The denoiser, which takes rows low .. high - 1 of the image, low and high. Only the rows that were asked for
            are right.
        """
        if height <= self.size:
            return self, 0, height
        whole_side = _side(height, self.size, self.overlap)
        used = [k for k, top in enumerate(whole_side.starts) if top < last and top + self.size > first]
        low, high = whole_side.starts[used[0]], whole_side.starts[used[-1]] + self.size
        part = Tiled(self.denoiser, self.size, self.overlap, self.batch, self.channels)
        part._rows = Side([whole_side.starts[k] - low for k in used], whole_side.weights[used])
        return part, low, high

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        self._check(u)
        shape, s = u.shape, as_time(s)
        copies = u.shape[1] if self.channels == 1 else 1
        if copies > 1:
            u, s = u.reshape(-1, 1, *shape[2:]), s if s.ndim == 0 else s.repeat_interleave(copies)
            label = None if label is None else label.repeat_interleave(copies)
        return self._blend(_reflected(u, self.size), s, label)[..., : shape[2], : shape[3]].reshape(shape)

    def _check(self, u: Tensor) -> None:
        if u.ndim != 4 or self.channels not in (None, 1, u.shape[1]):
            raise ValueError(
                f"a tiled denoiser needs images (B, {self.channels or 'C'}, H, W), got shape {tuple(u.shape)}. "
                "Convert them to the channels of its training."
            )

    def _blend(self, u: Tensor, s: Tensor, label: Tensor | None) -> Tensor:
        tall = self._rows or _side(u.shape[-2], self.size, self.overlap)
        wide = _side(u.shape[-1], self.size, self.overlap)
        rows, columns = tall.weights.to(u), wide.weights.to(u)
        out = torch.zeros_like(u)
        everywhere = list(product(range(len(u)), enumerate(tall.starts), enumerate(wide.starts)))
        for first in range(0, len(everywhere), self.batch):
            places = everywhere[first : first + self.batch]
            index = [place[0] for place in places]
            tiles = torch.stack([u[(i, *self._slices(top, left))] for i, (_, top), (_, left) in places])
            denoised = self.denoiser(tiles, s if s.ndim == 0 else s[index], None if label is None else label[index])
            for tile, (i, (row, top), (column, left)) in zip(denoised, places, strict=True):
                out[(i, *self._slices(top, left))] += tile * rows[row][:, None] * columns[column]
        return out

    def _slices(self, top: int, left: int) -> tuple[slice, slice, slice]:
        return slice(None), slice(top, top + self.size), slice(left, left + self.size)


def _reflected(u: Tensor, size: int) -> Tensor:
    r"""u (B, C, H, W) continued by reflection, as often as it takes, until both sides have at least `size` pixels."""
    for dim in (-2, -1):
        length = u.shape[dim]
        if length < size:
            period = max(1, 2 * (length - 1))
            folded = torch.arange(size, device=u.device) % period
            u = u.index_select(dim, torch.minimum(folded, period - folded))
    return u
