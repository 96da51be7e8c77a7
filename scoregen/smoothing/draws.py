r"""Draws on any device from a torch generator, in float64 unless strict is False.

On the CPU numpy's ziggurat is twice as fast as torch's float64 Box-Muller, and after the network, drawing is most of
the cost of a certification. So a CPU draw seeds numpy's SFC64 with the next number of the torch generator and with the
64 bits that it was seeded with: of a seed given to `manual_seed` torch's own stream keeps only 32 on a CPU.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

_LARGEST_SEED = 2**63 - 1


def _numpy(generator: torch.Generator) -> np.random.Generator:
    seed = torch.randint(_LARGEST_SEED, (), generator=generator)
    return np.random.Generator(np.random.SFC64([generator.initial_seed(), int(seed)]))


def _draw(
    native: Callable[..., Tensor],
    fast: Callable[..., np.ndarray],
    shape: Sequence[int],
    generator: torch.Generator,
    strict: bool,
) -> Tensor:
    if generator.device.type == "cpu":
        drawn: Tensor = torch.from_numpy(fast(_numpy(generator), tuple(shape), np.float64 if strict else np.float32))
        return drawn
    dtype = torch.float64 if strict else torch.float32
    return native(tuple(shape), generator=generator, device=generator.device, dtype=dtype)


def normal(shape: Sequence[int], generator: torch.Generator, strict: bool = True) -> Tensor:
    r"""Standard normal draws on the generator's device, in float64 or, not strict, in float32."""
    return _draw(torch.randn, np.random.Generator.standard_normal, shape, generator, strict)


def uniform(shape: Sequence[int], generator: torch.Generator, strict: bool = True) -> Tensor:
    r"""Uniform draws in [0, 1); arguments as `normal`."""
    return _draw(torch.rand, np.random.Generator.random, shape, generator, strict)
