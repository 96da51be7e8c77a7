r"""Strong random views of images for contrastive learning, by torchvision's transforms.

torchvision draws from torch's global generator; here it is seeded for each image by that image's own generator, so a
view is a function of its keys like everything else random.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from scoregen.compat import repair_torchvision
from scoregen.data.augment import Augmentation
from scoregen.rng import Generators, rand


class GreyViews(Augmentation):
    r"""Views of small grey images (digits, clothes): crop, small rotation and shear, contrast, blur.

        No mirroring, which takes digits and letters to others, and crops of at least half the area.

    Args:
        scale: of the area of a crop. degrees: largest rotation and shear.
    """

    def __init__(self, scale: Sequence[float] = (0.5, 1.0), degrees: float = 12.0) -> None:
        self.scale, self.degrees = _checked(scale), float(degrees)
        self._transform = None
        self._size: tuple[int, ...] | None = None

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        size = tuple(x.shape[-2:])
        if self._transform is None or self._size != size:
            v2 = _transforms()
            self._size, blur = size, v2.GaussianBlur(3, (0.1, 1.0))
            self._transform = v2.Compose(
                [
                    v2.RandomAffine(self.degrees, shear=self.degrees),
                    v2.RandomResizedCrop(size, self.scale, (0.8, 1.25), antialias=False),
                    v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4)], p=0.5),
                    v2.RandomApply([blur], p=0.3),
                ]
            )
        return apply_each(self._transform, x, generator)


class ColourViews(Augmentation):
    r"""Views of colour images (CIFAR): crop, mirroring, colour jitter, grey, blur, solarisation.

    Args:
        scale: of the area of a crop. blur: probability of it. solarize: probability of it.

    Reference: Grill et al. (2020), arXiv 2006.07733, appendix B; its two sets differ in `blur` and `solarize`.
    """

    def __init__(self, scale: Sequence[float] = (0.08, 1.0), blur: float = 0.5, solarize: float = 0.1) -> None:
        self.scale = _checked(scale)
        for name, value in (("blur", blur), ("solarize", solarize)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be a probability, got {name}={value}.")
        self.blur, self.solarize = float(blur), float(solarize)
        self._transform = None
        self._size: tuple[int, ...] | None = None

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        size = tuple(x.shape[-2:])
        if self._transform is None or self._size != size:
            v2 = _transforms()
            self._size = size
            kernel = max(3, size[0] // 10 // 2 * 2 + 1)
            self._transform = v2.Compose(
                [
                    v2.RandomResizedCrop(size, self.scale, antialias=True),
                    v2.RandomHorizontalFlip(),
                    v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                    v2.RandomGrayscale(0.2),
                    v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], p=self.blur),
                    v2.RandomSolarize(0.5, p=self.solarize),
                ]
            )
        return apply_each(self._transform, x, generator)


def apply_each(transform, x: Tensor, generator: Generators) -> Tensor:
    r"""A torchvision transform of each image (B, C, H, W), with seeds drawn by our generators."""
    seeds = (rand((len(x),), generator, torch.float64, "cpu") * 2**53).long().tolist()
    with torch.random.fork_rng(devices=[]):
        views = []
        for image, seed in zip(x.cpu(), seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            views.append(transform(image))
    return torch.stack(views).to(x.device)


def _transforms():
    repair_torchvision()
    from torchvision.transforms import v2

    return v2


def _checked(scale: Sequence[float]) -> tuple[float, float]:
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must be two areas with 0 < least <= largest <= 1, got scale={list(scale)}.")
    return float(scale[0]), float(scale[1])
