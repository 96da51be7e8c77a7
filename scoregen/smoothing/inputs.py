r"""The inputs of a certification: numbered, checked, and some of them evenly spread."""

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from scoregen.data.pictures import spread as evenly
from scoregen.smoothing.guard import KNOWN_BY
from scoregen.smoothing.noise import AbstractNoise

Item = TypeVar("Item")


def numbered(x: Tensor, indices: Sequence[int] | None) -> list[tuple[int, Tensor]]:
    r"""Inputs (B, *S) with their numbers in the data set, 0, 1, ... unless given.

    Raises:
        ValueError: the numbers are not one for each input, or not different.
    """
    numbers = list(range(len(x))) if indices is None else [int(i) for i in indices]
    if len(numbers) != len(x) or len(set(numbers)) != len(numbers):
        raise ValueError(f"indices must hold {len(x)} different numbers, one for each input, got {numbers}.")
    return list(zip(numbers, x, strict=True))


def spread(inputs: Sequence[Item]) -> list[Item]:
    r"""At most `KNOWN_BY` of the inputs, evenly spread."""
    return [inputs[i] for i in evenly(len(inputs), KNOWN_BY)]


def checked(index: int, x: Tensor, noise: AbstractNoise) -> Tensor:
    r"""An input (*S) that a noise can certify, without its gradient.

    Raises:
        TypeError: it is not floating-point.
        ValueError: it is not finite, or the noise does not suit it.
    """
    if not x.is_floating_point():
        raise TypeError(
            f"x must be floating-point, in the data's own units, got {x.dtype}. For images use x.float() / 255."
        )
    if not bool(x.isfinite().all()):
        raise ValueError(f"x must be finite, got input {index} with NaN or infinity. Remove it.")
    try:
        noise.check(x)
    except ValueError as error:
        raise ValueError(f"input {index}: {error}") from error
    return x.detach()
