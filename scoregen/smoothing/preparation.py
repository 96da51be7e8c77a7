r"""What a classifier does first with an image: its own size and normalisation, as parts of what is certified.

Noise is added to x in the data's own units and size. Whatever follows is a function of the noisy x, so that a
certificate of the classifier behind it is one for x:

    noisy x -> resize -> (x - mean)/std -> network
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import whole

Interpolation = Literal["bilinear", "bicubic"]


class Normalized(nn.Module):
    r"""classifier((x - mean)/std), channel by channel, so that x and the noise on it stay in the data's units.

    Args:
        classifier: of normalised images (B, C, H, W).
        mean, std: a number for each channel, in the units of x; std > 0.

    Raises:
        ValueError: mean and std of different lengths, or std <= 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Callable[[Tensor], Any], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not len(std) or min(std) <= 0:
            raise ValueError(
                f"mean and std must have a number for each channel, std > 0, got mean={list(mean)}, std={list(std)}."
            )
        self.classifier = classifier
        self.register_buffer("mean", torch.tensor([float(m) for m in mean]).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor([float(s) for s in std]).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Any:
        if x.ndim != 4 or x.shape[1] != len(self.mean):
            raise ValueError(
                f"the classifier's normalisation is for images of {len(self.mean)} channels, got inputs of shape "
                f"{tuple(x.shape[1:])}."
            )
        return self.classifier((x - self.mean) / self.std)


class Resized(nn.Module):
    r"""classifier(x at another size): the shorter side is resized, the middle is cut out.

        Smoothed against aliasing. An image that has the size already is taken as it is.

    Args:
        classifier: of images (B, C, *size).
        size: side, or (height, width).
        resize: of the shorter side, or (height, width), before the middle is cut out; None: `size` itself.
        interpolation: "bilinear" or "bicubic".

    Raises:
        ValueError: a size < 1, or a middle that is larger than what it is cut from.
    """

    def __init__(
        self,
        classifier: Callable[[Tensor], Any],
        size: int | Sequence[int],
        resize: int | Sequence[int] | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        self.classifier, self.interpolation = classifier, interpolation
        self.size, self.resize = _pair(size), size if resize is None else resize
        if min(_pair(self.resize)) < min(self.size):
            raise ValueError(f"resize must be at least size, got resize={resize}, size={size}.")

    def forward(self, x: Tensor) -> Any:
        if tuple(x.shape[2:]) != self.size:
            x = functional.interpolate(x, self._between(x), mode=self.interpolation, antialias=True)
            top, left = ((have - want) // 2 for have, want in zip(x.shape[2:], self.size, strict=True))
            x = x[:, :, top : top + self.size[0], left : left + self.size[1]]
        return self.classifier(x)

    def _between(self, x: Tensor) -> tuple[int, int]:
        r"""The size of the image before its middle is cut out."""
        if not isinstance(self.resize, int):
            return _pair(self.resize)
        height, width = x.shape[2:]
        scale = self.resize / min(height, width)
        sides = round(height * scale), round(width * scale)
        return max(sides[0], self.size[0]), max(sides[1], self.size[1])  # of a square that became a rectangle

    def extra_repr(self) -> str:
        return f"size={self.size}, resize={self.resize}, interpolation={self.interpolation}"


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    whole(1, size=height)
    whole(1, size=width)
    return height, width


@dataclass(frozen=True, kw_only=True)
class ClassifierInput:
    r"""What a classifier wants its images to be; what is None is left as it is.

    Args:
        mean, std: a number for each channel: the network sees (x - mean)/std.
        size: side, or [height, width]: images of another size are resized.
        resize: of the shorter side, or [height, width], before the middle is cut out; None: `size` itself.
        interpolation: "bilinear" or "bicubic"; None: bilinear.
    """

    mean: list[float] | None = None
    std: list[float] | None = None
    size: int | list[int] | None = None
    resize: int | list[int] | None = None
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean and std belong together, got mean={self.mean}, std={self.std}.")
        if self.size is None and self.resize is not None:
            raise ValueError(f"resize needs size, the middle that is cut out, got resize={self.resize}.")
        self.around(lambda x: x)

    def overridden(self, given: "ClassifierInput") -> "ClassifierInput":
        r"""These wishes with what is given in their place; a size that is given has no other one before it."""
        known = {part.name: getattr(given, part.name) for part in fields(given)}
        known = {name: value for name, value in known.items() if value is not None}
        return replace(self, **({"resize": None} if "size" in known else {}), **known)

    def around(self, classifier: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        r"""The classifier behind its size and normalisation; itself where it wants nothing."""
        if self.mean is not None and self.std is not None:
            classifier = Normalized(classifier, self.mean, self.std)
        if self.size is not None:
            classifier = Resized(classifier, self.size, self.resize, self.interpolation or "bilinear")
        return classifier

    def __str__(self) -> str:
        parts = [f"size {self.size}"] if self.size is not None else []
        if self.resize is not None and self.resize != self.size:
            parts[0] += f" (others: {self.resize}, then the middle)"
        if self.mean is not None and self.std is not None:
            numbers = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
            parts.append("mean {}, std {}".format(*numbers))
        return ", ".join(parts) or "the data as they are"
