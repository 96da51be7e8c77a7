r"""Random numbers as a function of integers, computed anew wherever they are needed.

A number is a hash of (key of the sample, its place in the sample). Nothing is stored, no generator is seeded, and all
samples of a batch are drawn by one formula on the device where they are used:

    k_i = SplitMix64 round of (seed, stream, step, draw, i),   h_c = M(c g),   z_ic = M(k_i xor h_c)
    M:  z ^= z >> 32;  z *= m;  z ^= z >> 32;  z *= m;  z ^= z >> 32             (degski's 64-bit mixer)
    normal draws: sqrt(-2 ln v) (cos a, sin a), with v and a from the upper and the lower half of z      (Box, Muller)

The 64 bits of z and the uniform draws are the same on every device; normal draws are the same up to the rounding of its
logarithm, sine and cosine.

Reference: Steele, Lea, Flood (2014), "Fast splittable pseudorandom number generators"; Salmon et al. (2011), "Parallel
random numbers: as easy as 1, 2, 3", for the design by counters.
"""

import math
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

Places = range | Tensor | Callable[[], Tensor]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of SplitMix64
_FACTOR = 0xD6E8FEB86659FD93
_BLOCK = 1 << 15  # numbers of 64 bits that stay in the cache of a core
_LOW = 0 if sys.byteorder == "little" else 1  # where in a number its lower half stands


def derive_seed(*keys: int) -> int:
    r"""A 64-bit seed from integer keys: one round of SplitMix64 for each key, chained.

    Args:
        keys: integers; order matters.
    """
    state = _GOLDEN
    for key in keys:
        z = (state ^ (key & _MASK)) + _GOLDEN & _MASK
        z = (z ^ z >> 30) * _FIRST & _MASK
        z = (z ^ z >> 27) * _SECOND & _MASK
        state = z ^ z >> 31
    return state


class Keys:
    r"""The random numbers of a batch, those of each sample from its own key (seed, stream, step, draw, place).

        Takes the place of a list of generators: every call is the next draw. A sample's draws do not depend on the
        other samples, so neither on how a batch is cut into blocks nor on the number of processes.

    Args:
        seed, stream, step: integers.
        places: of the samples in the global batch: a range, integers (B,) on the device, or a function that gives such
            integers, called at the first draw.
    """

    def __init__(self, seed: int, stream: int, step: int, places: Places) -> None:
        if isinstance(places, range) and places.step != 1:
            raise ValueError(f"places must follow one another, got {places}. Give a tensor of integers.")
        self._keys, self._places, self._draws = (seed, stream, step), places, 0

    def __len__(self) -> int:
        return len(self._places) if isinstance(self._places, range) else len(self._numbers())

    @property
    def first(self) -> int:
        r"""Place of the first sample in the global batch; 0 where the places do not follow one another."""
        return self._places.start if isinstance(self._places, range) else 0

    def copy(self) -> Self:
        r"""The same keys at the same draw."""
        twin = type(self)(*self._keys, self._places)
        twin._draws = self._draws
        return twin

    def rand(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> Tensor:
        r"""Uniform draws in [0, 1) of shape (B, *S), with 53 bits in float64, else 24."""
        key, size = self._next(shape, device), math.prod(shape[1:])
        z = _mix(key[:, None] ^ _counters(size, key.device))
        bits = 53 if dtype == torch.float64 else 24
        draws = _shift(z, 64 - bits).to(_working(dtype)).mul_(2.0**-bits)
        return draws.reshape(tuple(shape)).to(dtype)

    def randn(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> Tensor:
        r"""Standard normal draws of shape (B, *S), at most 6.7 in size; in float32 those in float64, within 4e-4."""
        key, size = self._next(shape, device), math.prod(shape[1:])
        out = torch.empty(len(key), size, dtype=_working(dtype), device=key.device)
        half = (size + 1) // 2
        counters = _counters(half, key.device)
        rows, columns = _blocks(len(key), half, key.device)
        for row in range(0, len(key), rows):
            for first in range(0, half, columns):
                block = slice(first, first + columns)
                z = _mix(key[row : row + rows, None] ^ counters[block])
                _box_muller(z, out[row : row + rows, :half][:, block], out[row : row + rows, half:][:, block])
        return out.reshape(tuple(shape)).to(dtype)

    def _next(self, shape: Sequence[int], device: torch.device | str) -> Tensor:
        r"""The keys (B,) of the next draw, int64: the last round of `derive_seed` on the device."""
        if len(self) != shape[0]:
            raise ValueError(f"there must be one key for each sample, got {len(self)} keys for a batch of {shape[0]}.")
        state = derive_seed(*self._keys, self._draws)
        self._draws += 1
        z = (self._on(device) ^ _signed(state)) + _signed(_GOLDEN)
        z = (z ^ _shift(z, 30)) * _signed(_FIRST)
        z = (z ^ _shift(z, 27)) * _signed(_SECOND)
        return z ^ _shift(z, 31)

    def _on(self, device: torch.device | str) -> Tensor:
        if isinstance(self._places, range):
            return torch.arange(self._places.start, self._places.stop, device=device)
        return self._numbers().to(device)

    def _numbers(self) -> Tensor:
        if callable(self._places):
            self._places = self._places()
        assert isinstance(self._places, Tensor)
        return self._places


def _signed(value: int) -> int:
    r"""The 64-bit signed integer with these bits, which torch computes with."""
    return value - (1 << 64) if value >> 63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    r"""z >> bits of unsigned numbers."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _halves(z: Tensor) -> tuple[Tensor, Tensor]:
    r"""Views of the lower and the upper 32 bits of numbers (..., N)."""
    words = z.view(torch.int32)
    return words[..., _LOW::2], words[..., 1 - _LOW :: 2]


def _mix(z: Tensor) -> Tensor:
    r"""Degski's mixer, in place: a shift by 32 bits is a word of the number."""
    low, high = _halves(z)
    low ^= high
    z *= _signed(_FACTOR)
    low ^= high
    z *= _signed(_FACTOR)
    low ^= high
    return z


def _box_muller(z: Tensor, first: Tensor, second: Tensor) -> None:
    r"""Two normal draws of each number (..., N), written to `first` (..., N) and `second`, which may be one shorter."""
    low, high = _halves(z)
    radius = high.bitwise_and_(0x7FFFFFFF).to(first.dtype).add_(0.5).mul_(2.0**-31).log_().mul_(-2).sqrt_()
    angle = low.to(first.dtype).mul_(math.pi / 2**31)
    torch.mul(radius, angle.cos(), out=first)
    count = second.shape[-1]
    torch.mul(radius[..., :count], angle.sin_()[..., :count], out=second)


def _working(dtype: torch.dtype) -> torch.dtype:
    r"""The type in which draws are computed."""
    return torch.promote_types(dtype, torch.float32)


def _blocks(rows: int, columns: int, device: torch.device) -> tuple[int, int]:
    r"""Rows and columns of what is drawn at once: on a CPU what its caches hold, elsewhere all."""
    if device.type != "cpu":
        return max(rows, 1), max(columns, 1)
    size = _BLOCK * torch.get_num_threads()
    return max(1, size // max(columns, 1)), size


@lru_cache(maxsize=8)
def _counters(count: int, device: torch.device) -> Tensor:
    r"""h_0 ... h_(count-1), int64."""
    return _mix(torch.arange(1, count + 1, device=device) * _signed(_GOLDEN))
