r"""Augmentations of batches, with one generator a sample."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from scoregen import checks
from scoregen.rng import Generators, rand, randn


class Augmentation(ABC):
    r"""A random map of a batch, which draws for each sample from the generator of this sample."""

    @abstractmethod
    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        r"""The augmented batch, of the same shape.

        Args:
            x: (B, *S). generator: one, or a list with one for each sample.
        """


class Flip(Augmentation):
    r"""Mirrors an image left to right with probability 1/2.

    Raises:
        ValueError: samples that are no images (B, C, H, W).
    """

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        if x.ndim != 4:  # the columns of a table have no left and right
            raise ValueError(f"samples must be images (B, C, H, W) to be mirrored, got {tuple(x.shape)}. Leave it out.")
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
        return _moved(functional.pad(x, [self.pixels] * 4, mode="replicate"), x, self.pixels, generator)


class Crop(Augmentation):
    r"""Fills up an image at its border and crops it to its size again, at a random place.

    Args:
        padding: pixels on each side, >= 1.
        border: what the border is filled with: "reflect" (the image, mirrored), "repeat" (its last pixels) or "fill".
        fill: value of the border, in the units of the data; needs border="fill".

    Raises:
        ValueError: values out of range.
    """

    def __init__(self, padding: int = 4, border: str = "reflect", fill: float | None = None) -> None:
        checks.whole(1, padding=padding)
        checks.one_of(_BORDERS, border=border)
        if (fill is not None) != (border == "fill"):
            raise ValueError(f"fill must be given with border='fill' and with no other, got {fill=}, {border=}.")
        self.padding, self.border, self.fill = int(padding), border, fill

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        if self.border == "reflect" and self.padding >= min(x.shape[-2:]):
            raise ValueError(
                f"padding must be below the sides of the images, {tuple(x.shape[-2:])}, to mirror them, got "
                f"padding={self.padding}."
            )
        padded = functional.pad(x, [self.padding] * 4, _BORDERS[self.border], self.fill)
        return _moved(padded, x, self.padding, generator)


_BORDERS = {"reflect": "reflect", "repeat": "replicate", "fill": "constant"}


def _moved(padded: Tensor, x: Tensor, pixels: int, generator: Generators) -> Tensor:
    r"""A window of the size of x at a random place of each padded image, where the images are."""
    draws = (rand((len(x), 2), generator, device=x.device) * (2 * pixels + 1)).long()
    return (_sliced if x.device.type == "cpu" else _gathered)(padded, draws, x.shape)


def _sliced(padded: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    r"""Windows by slices, each a copy of rows: the faster one on a CPU."""
    height, width = shape[-2:]
    windows = zip(padded, places.tolist(), strict=True)
    return torch.stack([image[..., r : r + height, c : c + width] for image, (r, c) in windows])


def _gathered(padded: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    r"""The same by one operation for the batch, which never waits for an accelerator."""
    (height, width), wide, device = shape[-2:], padded.shape[-1], padded.device
    inside = (torch.arange(height, device=device)[:, None] * wide + torch.arange(width, device=device)).reshape(1, -1)
    index = inside + places[:, :1] * wide + places[:, 1:]
    return padded.flatten(2).gather(2, index[:, None].expand(-1, padded.shape[1], -1)).reshape(shape)


class InstanceNoise(Augmentation):
    r"""Adds normal noise, so that data of few values or on a thin set have a density at the scale sigma.

        For models without a noise level of their own: classifiers, and consistency models at s_min. A diffusion model
        needs none: its s_min is this noise, which its samplers remove in the last step. With the noise of a loss, such
        as `CrossEntropy(noise_sigma)`, it adds in quadrature.

    Args:
        sigma: standard deviation, in the units of the data, > 0.

    Raises:
        ValueError: sigma is not > 0.

    Reference: Chae, Kim, Kim, Lin (2023), arXiv 2105.04046.
    """

    def __init__(self, sigma: float) -> None:
        checks.positive(sigma=sigma)
        self.sigma = float(sigma)

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        return x + self.sigma * randn(x.shape, generator, x.dtype, x.device)


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
