r"""Randomness as a function of integer keys, never of history.

A generator is seeded with a hash of (seed, *keys), for example (seed, stream, step, index of the sample). So a resumed
run needs no stored generator, and the noise of sample k is the same whatever the batch size or the number of processes.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None

_MASK = (1 << 64) - 1


def derive_seed(*keys: int) -> int:
    r"""A 64-bit seed from integer keys: one round of SplitMix64 for each key, chained.

    Args:
        keys: integers; order matters.

    Reference: Steele, Lea, Flood (2014), "Fast splittable pseudorandom number generators".
    """
    state = 0x9E3779B97F4A7C15
    for key in keys:
        z = (state ^ (key & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        state = z ^ z >> 31
    return state


def generator(*keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    r"""A generator seeded by the hash of the keys.

    Args:
        keys: integers, by convention (seed, stream, ...).
        device: where its draws are made; draws on the CPU are the same on every machine. There torch keeps 32 bits of
            a seed: among 50,000 samples two are the same with probability 1/4 (certificates draw by all 64 bits).
    """
    return torch.Generator(device).manual_seed(derive_seed(*keys))


def generators(seed: int, stream: int, step: int, indices: Sequence[int]) -> list[torch.Generator]:
    r"""One generator a sample, keyed by (seed, stream, step, index)."""
    return [generator(seed, stream, step, int(index)) for index in indices]


def _draw(function, shape: Sequence[int], generator: Generators, dtype, device) -> Tensor:
    if generator is None or isinstance(generator, torch.Generator):
        where = generator.device if generator is not None else device
        return function(tuple(shape), generator=generator, dtype=dtype, device=where).to(device)
    if len(generator) != shape[0]:
        raise ValueError(
            f"generator must be one torch.Generator or a list with one for each sample, got a list of {len(generator)} "
            f"for a batch of {shape[0]}; pass {shape[0]} generators."
        )
    rows = [function(tuple(shape[1:]), generator=g, dtype=dtype, device=g.device) for g in generator]
    return torch.stack(rows).to(device)


def randn(shape: Sequence[int], generator: Generators = None, dtype=None, device=None) -> Tensor:
    r"""Standard normal draws.

    Args:
        shape: (B, *S).
        generator: None (the global one), one for the batch, or a list with one a sample (as diffusers).
        dtype: of the draws; device: where they go. A generator on the CPU serves every device.

    Raises:
        ValueError: when a list has not one generator a sample.
    """
    return _draw(torch.randn, shape, generator, dtype, device)


def rand(shape: Sequence[int], generator: Generators = None, dtype=None, device=None) -> Tensor:
    r"""Uniform draws in [0, 1); arguments as `randn`."""
    return _draw(torch.rand, shape, generator, dtype, device)


def random_signs(shape: Sequence[int], generator: Generators = None, dtype=None, device=None) -> Tensor:
    r"""Rademacher draws, -1 or 1 with equal probability; arguments as `randn`."""
    signs = rand(shape, generator, dtype, device)
    return torch.where(signs < 0.5, 1, -1).to(signs)


def forked(device: torch.device) -> AbstractContextManager:
    r"""A context after which the global generators (of the CPU and of a device) are where they were: of dropout."""
    return torch.random.fork_rng([device] if device.type != "cpu" else [], device_type=device.type)
