r"""The transforms of torchvision, by their names, as one augmentation."""

import math
from collections.abc import Mapping, Sequence
from inspect import signature
from types import ModuleType
from typing import Any

from torch import Tensor

from scoregen import checks
from scoregen.data.augment import Augmentation
from scoregen.data.views import Transform, apply_each, v2_module
from scoregen.errors import closest
from scoregen.rng import Generators

_ROUND_OFF = 1e-5
SIZED = ("RandomCrop", "RandomResizedCrop")  # whose size is that of the images
ALLOWED = (  # one image in, one of the same shape out
    *SIZED,
    *("AugMix", "AutoAugment", "RandAugment", "TrivialAugmentWide"),
    *("RandomHorizontalFlip", "RandomVerticalFlip", "RandomRotation", "RandomAffine", "RandomPerspective"),
    *("ElasticTransform", "GaussianBlur", "GaussianNoise", "RandomErasing", "RandomAdjustSharpness"),
    *("ColorJitter", "RandomPhotometricDistort", "RandomChannelPermutation", "RandomGrayscale", "RandomInvert"),
    *("RandomAutocontrast", "RandomEqualize", "RandomPosterize", "RandomSolarize"),
)


class Transforms(Augmentation):
    r"""Transforms of `torchvision.transforms.v2` by their names, one after another.

        They are computed on the CPU, image by image, in [0, 1], where their colours are defined; values in other units
        are taken there and back. Values that a transform takes out of the range are set to its ends.

    Args:
        steps: the name of a transform, or {name: {argument: value}}, each. A size that is not given is that of the
            images.
        range: lowest and highest value of the data, as `data.range`.

    Raises:
        ValueError: a transform or an argument that is not known, or a value outside the range.
    """

    def __init__(self, steps: Sequence[str | Mapping[str, Mapping[str, Any]]], range: Sequence[float] = (0, 1)) -> None:
        checks.increasing(-math.inf, low=range[0], high=range[1])
        self.steps, self.range = list(steps), tuple(range)
        self._steps = [_named(step) for step in self.steps]
        self._made = self._transform((8, 8))  # finds mistakes now
        self._size = 8, 8

    def _transform(self, size: tuple[int, int]) -> Transform:
        v2 = v2_module()
        composed: Transform = v2.Compose([_step(v2, name, given, size) for name, given in self._steps])
        return composed

    def __call__(self, x: Tensor, generator: Generators) -> Tensor:
        size, (low, high) = (x.shape[-2], x.shape[-1]), self.range
        if self._size != size:
            self._size, self._made = size, self._transform(size)
        y = (x.cpu() - low) / (high - low)
        if float(y.min()) < -_ROUND_OFF or float(y.max()) > 1 + _ROUND_OFF:
            raise ValueError(
                f"range must hold the values of the data, got range={list(self.range)} and values from "
                f"{float(x.min()):g} to {float(x.max()):g}. Give data.augmentation.range."
            )
        out = apply_each(self._made, y, generator)
        if out.shape != x.shape:
            raise ValueError(
                f"steps must keep the shape of images, got {tuple(x.shape)} in and {tuple(out.shape)} out."
            )
        return (out.clamp(0, 1) * (high - low) + low).to(x.device)


def _named(step: str | Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    r"""The name of a transform and its arguments."""
    (name, given), *more = step.items() if isinstance(step, Mapping) and step else [(step, {})]
    if more or not isinstance(name, str) or not isinstance(given, Mapping | None):
        raise ValueError(f"steps must each be the name of a transform, or {{name: {{argument: value}}}}, got {step!r}.")
    checks.one_of(ALLOWED, steps=name)
    return name, dict(given or {})


def _step(v2: ModuleType, name: str, given: Mapping[str, Any], size: tuple[int, int]) -> Transform:
    kind = getattr(v2, name)
    known = [argument for argument in signature(kind).parameters if argument != "inplace"]
    for argument in given.keys() - set(known):
        raise ValueError(f"steps: {name} has no argument '{argument}'. {closest(argument, known)}")
    if name in SIZED:
        given = {"size": size, **given}
    if "policy" in given:
        checks.one_of([policy.value for policy in v2.AutoAugmentPolicy], policy=given["policy"])
        given = {**given, "policy": v2.AutoAugmentPolicy(given["policy"])}
    try:
        made: Transform = kind(**given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"steps: {name} refuses its arguments: {' '.join(str(error).split())}") from error
    return made
