r"""Strong random views of images for contrastive learning, by torchvision's transforms.

torchvision draws from torch's global generator. Here that generator is set for each image by the image's own generator,
so a view is a function of its keys, as all random numbers are.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from scoregen import checks
from scoregen.compat import repair_torchvision
from scoregen.data.augment import Augmentation
from scoregen.rng import Generators, rand
from scoregen.rng import generator as keyed

Transform = Callable[[Tensor], Tensor]
_ROUND_OFF = 1e-5


class _Views(Augmentation):
    r"""A torchvision transform, made for the size of the images at the first call.

    Args:
        scale: smallest and largest area of a crop, as fractions of the image.
    """

    def __init__(self, scale: Sequence[float]) -> None:
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be two areas with 0 < least <= largest <= 1, got scale={list(scale)}.")
        self.scale = float(scale[0]), float(scale[1])
        self._made: tuple[tuple[int, int], Transform] | None = None

    @abstractmethod
    def transform(self, v2: ModuleType, size: tuple[int, int]) -> Transform:
        r"""The transform of images of this size; v2 is `torchvision.transforms.v2`."""

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        size, (low, high) = (x.shape[-2], x.shape[-1]), (float(end) for end in x.aminmax())
        if low < -_ROUND_OFF or high > 1 + _ROUND_OFF:  # colours of torchvision are cut to [0, 1]
            raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}. Give data in [0, 1].")
        if self._made is None or self._made[0] != size:
            self._made = size, self.transform(v2_module(), size)
        return apply_each(self._made[1], x, generator)


class GreyViews(_Views):
    r"""Views of small grey images (digits, clothes): crop, small rotation and shear, contrast, blur.

        Images are not mirrored, which would turn digits and letters into others, and crops keep half the area at least.

    Args:
        scale: smallest and largest area of a crop, as fractions of the image.
        degrees: largest rotation and shear, >= 0.

    Raises:
        ValueError: values out of range.
    """

    def __init__(self, scale: Sequence[float] = (0.5, 1.0), degrees: float = 12.0) -> None:
        super().__init__(scale)
        checks.at_least(0, degrees=degrees)
        self.degrees = float(degrees)

    def transform(self, v2: ModuleType, size: tuple[int, int]) -> Transform:
        steps = [
            v2.RandomAffine(self.degrees, shear=self.degrees),
            v2.RandomResizedCrop(size, self.scale, (0.8, 1.25), antialias=False),
            v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4)], p=0.5),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 1.0))], p=0.3),
        ]
        composed: Transform = v2.Compose(steps)
        return composed


class ColourViews(_Views):
    r"""Views of colour images (CIFAR): crop, mirroring, colour jitter, grey, blur, solarisation.

    Args:
        scale: smallest and largest area of a crop, as fractions of the image.
        blur: probability of a blur. solarize: probability of solarisation.

    Raises:
        ValueError: values out of range.

    Reference: Grill et al. (2020), arXiv 2006.07733, appendix B; its two sets differ in `blur` and `solarize`.
    """

    def __init__(self, scale: Sequence[float] = (0.08, 1.0), blur: float = 0.5, solarize: float = 0.1) -> None:
        super().__init__(scale)
        checks.inside(0, 1, blur=blur, solarize=solarize)
        self.blur, self.solarize = float(blur), float(solarize)

    def transform(self, v2: ModuleType, size: tuple[int, int]) -> Transform:
        kernel = max(3, size[0] // 10 // 2 * 2 + 1)
        steps = [
            v2.RandomResizedCrop(size, self.scale, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], p=self.blur),
            v2.RandomSolarize(0.5, p=self.solarize),
        ]
        composed: Transform = v2.Compose(steps)
        return composed


def apply_each(transform: Transform, x: Tensor, generator: Generators) -> Tensor:
    r"""A torchvision transform of each image (B, C, H, W), with seeds drawn by our generators."""
    seeds = (rand((len(x),), generator, torch.float64, "cpu") * 2**53).long().tolist()
    with torch.random.fork_rng(devices=[]):
        views = []
        for image, seed in zip(x.cpu(), seeds, strict=True):
            torch.set_rng_state(keyed(seed).get_state())  # a manual_seed would keep 32 bits of the seed
            views.append(transform(image))
    return torch.stack(views).to(x.device)


def v2_module() -> ModuleType:
    r"""`torchvision.transforms.v2`."""
    repair_torchvision()
    return import_module("torchvision.transforms.v2")
