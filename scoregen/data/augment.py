r"""Augmentations of batches, with one generator a sample."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from scoregen import checks
from scoregen.rng import Generators, rand


class Augmentation(ABC):
    r"""A random map of a batch, which draws for each sample from the generator of this sample."""

    @abstractmethod
    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        r"""The augmented batch, of the same shape.

        Args:
            x: (B, *S). generator: one, or a list with one for each sample.
        """


class Flip(Augmentation):
    r"""Mirrors an image left to right with probability 1/2."""

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        flip = rand((len(x),), generator, device=x.device) < 0.5
        return torch.where(flip.reshape(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


class Shift(Augmentation):
    r"""Moves an image by up to `pixels` in each direction; the border is repeated.

    Args:
        pixels: largest displacement, >= 1.

    Raises:
        ValueError: pixels is no whole number >= 1.
    """

    def __init__(self, pixels: int = 2) -> None:
        checks.whole(1, pixels=pixels)
        self.pixels = int(pixels)

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        count = 2 * self.pixels + 1
        draws = (rand((len(x), 2), generator) * count).long().tolist()
        padded = functional.pad(x, [self.pixels] * 4, mode="replicate")
        height, width = x.shape[-2:]
        return torch.stack(
            [image[..., r : r + height, c : c + width] for image, (r, c) in zip(padded, draws, strict=True)]
        )


class Chain(Augmentation):
    r"""Applies augmentations one after another.

    Args:
        steps: the augmentations, in order.
    """

    def __init__(self, steps: Sequence[Augmentation]) -> None:
        self.steps = list(steps)

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        for step in self.steps:
            x = step(x, generator)
        return x
