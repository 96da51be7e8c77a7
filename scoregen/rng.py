r"""Randomness as a function of integer keys, never of history.

A generator is seeded with a hash of (seed, *keys), for example (seed, stream, step, index of the sample). So a resumed
run needs no stored generator, and the noise of sample k is the same whatever the batch size or the number of processes.

On the CPU torch's Mersenne twister keeps 32 bits of a seed: of 50,000 samples two would be equal with probability 1/4.
Here all 64 bits of the hash fill its 624 words, so that the probability is n^2 / 2^65, 7e-11 for these samples.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import IntEnum
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scoregen.keys import Keys, derive_seed

Generators = torch.Generator | Sequence[torch.Generator] | Keys | None

_WORDS = 624  # of the Mersenne twister


class Stream(IntEnum):
    r"""What random numbers are for: the second key of a generator, so that no two uses of a seed share draws."""

    # training
    NOISE = 1
    LEVELS = 2
    AUGMENTATION = 3
    DROPOUT = 4
    WEIGHTS = 5
    ORDER = 6
    REPRESENTATION = 7
    # sampling
    SAMPLE = 11
    LABEL = 12
    RESTORE = 13
    PURIFY = 14
    GRID = 15
    # monitors, so that what they choose is not chosen on the draws that an evaluation measures
    PREVIEW = 21
    MONITOR = 22
    FROZEN = 23
    # metrics
    BOOTSTRAP = 31
    SUBSET = 32
    PATHS = 33
    LEVEL = 34
    ELSEWHERE = 35  # rows of a table that are not those of its training file
    # certification
    SELECTION = 41
    ESTIMATION = 42
    VOTE = 43
    PROBE = 44
    EXPLAIN = 45
    ATTACK = 46


def generator(*keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    r"""A generator seeded by the hash of the keys.

    Args:
        keys: integers, by convention (seed, stream, ...).
        device: where its draws are made; draws on the CPU are the same on every machine.
    """
    seed = derive_seed(*keys)
    if torch.device(device).type != "cpu":
        return torch.Generator(device).manual_seed(seed)
    generator = torch.Generator()
    generator.set_state(_cpu_state(seed))
    return generator


def seed_all(*keys: int) -> None:
    r"""Seeds the global generators of all devices, which dropout and first weights draw from."""
    seed = derive_seed(*keys)
    torch.set_rng_state(_cpu_state(seed))
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:  # torch.manual_seed takes milliseconds for all that torch knows and a machine lacks
        module = torch.get_device_module(accelerator)
        getattr(module, "manual_seed_all", module.manual_seed)(seed)


def _cpu_state(seed: int) -> Tensor:
    r"""The state of a CPU generator whose words are a hash of (seed, place of the word)."""
    template, first, salt = _template()
    fields = template.copy()
    z = fields[first : first + _WORDS]
    np.bitwise_xor(salt, np.uint64(seed), out=z)  # the finalizer of SplitMix64, for all words at once
    for shift, factor in _ROUNDS:
        z ^= z >> shift
        z *= factor
    z ^= z >> _LAST
    z >>= _HALF
    fields[0] = seed  # what `initial_seed` returns
    return torch.from_numpy(fields.view(np.uint8))


_ROUNDS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST, _HALF = np.uint64(31), np.uint64(32)


@cache
def _template() -> tuple[np.ndarray, int, np.ndarray]:
    r"""The state of a fresh generator, where in it the words stand, and a salt for each word."""
    fields = torch.Generator().manual_seed(0).get_state().numpy().view(np.uint64)
    known = np.random.RandomState(0).get_state(legacy=False)["state"]["key"]  # the twister seeded with 0, from numpy
    places = [i for i in range(len(fields) - _WORDS + 1) if np.array_equal(fields[i : i + _WORDS], known)]
    if len(places) != 1:
        raise RuntimeError(f"torch {torch.__version__} keeps the state of a CPU generator in a form that is not known.")
    salt = np.array([derive_seed(word) for word in range(_WORDS)], dtype=np.uint64)
    return fields.copy(), places[0], salt


def generators(seed: int, stream: int, step: int, indices: Sequence[int]) -> list[torch.Generator]:
    r"""One generator a sample, keyed by (seed, stream, step, index)."""
    return [generator(seed, stream, step, int(index)) for index in indices]


def randn(
    shape: Sequence[int],
    generator: Generators = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Standard normal draws.

    Args:
        shape: (B, *S).
        generator: None (the global one), one for the batch, a list with one a sample (as diffusers), or `Keys`, which
            draw on the device.
        dtype: of the draws; device: where they go. A generator on the CPU serves every device.

    Raises:
        ValueError: when a list has not one generator a sample.
    """
    return _draw("normal", shape, generator, dtype or torch.get_default_dtype(), device)


def rand(
    shape: Sequence[int],
    generator: Generators = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Uniform draws in [0, 1); arguments as `randn`."""
    return _draw("uniform", shape, generator, dtype or torch.get_default_dtype(), device)


def _draw(
    law: Literal["normal", "uniform"],
    shape: Sequence[int],
    generator: Generators,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Tensor:
    target = torch.get_default_device() if device is None else torch.device(device)
    if isinstance(generator, Keys):
        return (generator.randn if law == "normal" else generator.rand)(shape, dtype, target)
    fill = Tensor.normal_ if law == "normal" else Tensor.uniform_
    if generator is None or isinstance(generator, torch.Generator):
        draws = _empty(shape, dtype, target if generator is None else generator.device, target)
        return _moved(fill(draws, generator=generator), target if device is not None else draws.device)
    if len(generator) != shape[0]:
        raise ValueError(
            f"generator must be one torch.Generator or a list with one for each sample, got a list of {len(generator)} "
            f"for a batch of {shape[0]}; pass {shape[0]} generators."
        )
    draws = _empty(shape, dtype, generator[0].device if generator else target, target)
    for row, own in zip(draws, generator, strict=True):
        fill(row, generator=own)
    return _moved(draws, target if device is not None else draws.device)


def _empty(shape: Sequence[int], dtype: torch.dtype, place: torch.device, target: torch.device) -> Tensor:
    r"""Room for draws; where they go on to an accelerator, in memory from which it copies without a wait."""
    accelerator = torch.accelerator.current_accelerator() if place.type == "cpu" != target.type else None
    pinned = accelerator is not None and accelerator.type == target.type
    return torch.empty(tuple(shape), dtype=dtype, device=place, pin_memory=pinned)


def _moved(draws: Tensor, target: torch.device) -> Tensor:
    return draws.to(target, non_blocking=draws.device.type == "cpu")


def random_signs(
    shape: Sequence[int],
    generator: Generators = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Rademacher draws, -1 or 1 with equal probability; arguments as `randn`."""
    signs = rand(shape, generator, dtype, device)
    return torch.where(signs < 0.5, 1, -1).to(signs)


def forked(device: torch.device) -> AbstractContextManager[None]:
    r"""A context after which the global generators (of the CPU and of a device) are where they were: of dropout."""
    return torch.random.fork_rng([device] if device.type != "cpu" else [], device_type=device.type)
