r"""A small residual classifier of images: base classifier of certification and feature extractor of the metrics.

    x in [0, 1] -> (x - 1/2)/(1/4) -> stages [conv of stride 2 -> norm -> ReLU -> residual blocks] -> mean over pixels
    = features(x) -> dropout -> linear = logits

or, with `hidden` units, stages -> all pixels -> linear -> ReLU = features(x): as in LeNet, features know places.

The normalisation is inside, so noise that is added to x for certification is in the units of the pixels.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import inside, whole
from scoregen.models.arguments import image_shape

_CENTRE, _SCALE = 0.5, 0.25


class Classifier(nn.Module):
    r"""A residual convolutional classifier.

        Batch norm: in training the logits of an image depend on its batch; call `eval()` before using it.

    Args:
        shape: shape of one image, (C, H, W).
        num_classes: K >= 2.
        channels: channels of each stage; the last is the number of features.
        blocks: residual blocks of each stage.
        stem_stride: stride of the first convolution; 2 is four times as quick as 1 and enough for 28 x 28 grey images.
        hidden: units of a layer that sees all pixels of the last stage, the features; None: the mean over pixels.
        dropout: probability that a feature is dropped before the last layer.

    Raises:
        ValueError: when an argument is out of range or the stages do not fit the image.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        channels: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (1, 1, 1),
        stem_stride: int = 2,
        dropout: float = 0.1,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        whole(2, num_classes=num_classes)
        whole(1, stem_stride=stem_stride)
        inside(0, 1, "[)", dropout=dropout)
        if hidden is not None:
            whole(1, hidden=hidden)
        _check_stages(channels, blocks)
        self.shape = image_shape(shape)
        _check_size(self.shape, channels, stem_stride)
        self.num_classes, self.channels, self.blocks = num_classes, tuple(channels), tuple(blocks)
        self.stem_stride, self.dropout, self.hidden = stem_stride, dropout, hidden
        widths = (self.shape[0], *channels)
        stages: list[nn.Module] = []
        for i, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            size, stride = (3, stem_stride) if i == 0 else (5, 2)
            stages += [
                _convolution(widths[i], width, size, stride),
                nn.ReLU(),
                *(_Residual(width) for _ in range(count)),
            ]
        self.num_features = hidden or channels[-1]
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if hidden is not None:
            pixels = math.prod(-(-size // _reduction(channels, stem_stride)) for size in self.shape[1:])
            self.pool = nn.Sequential(nn.Flatten(), nn.Linear(channels[-1] * pixels, hidden), nn.ReLU())
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(self.num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        r"""The penultimate layer, shape (B, num_features).

        Args:
            x: images (B, C, H, W), clean ones in [0, 1].
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}.")
        features: Tensor = self.pool(self.stages((x - _CENTRE) / _SCALE))
        return features

    def classify(self, features: Tensor) -> Tensor:
        r"""Logits (B, K) of features (B, num_features)."""
        logits: Tensor = self.head(self.drop(features))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        r"""Logits (B, K) of images (B, C, H, W)."""
        return self.classify(self.features(x))


class _Residual(nn.Module):
    r"""relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width, 3, 1), _convolution(width, width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(functional.relu(self.first(x))))


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def _reduction(channels: Sequence[int], stem_stride: int) -> int:
    r"""How many times the stages shrink a side."""
    return int(stem_stride * 2 ** (len(channels) - 1))


def _check_stages(channels: Sequence[int], blocks: Sequence[int]) -> None:
    if not channels or len(channels) != len(blocks) or min(channels) < 1 or min(blocks) < 0:
        raise ValueError(
            f"channels must be >= 1 and blocks >= 0, one of each a stage, got channels={tuple(channels)}, "
            f"blocks={tuple(blocks)}."
        )


def _check_size(shape: Sequence[int], channels: Sequence[int], stem_stride: int) -> None:
    reduction = _reduction(channels, stem_stride)
    if min(shape[1:]) < reduction:
        raise ValueError(
            f"{len(channels)} stages with stem_stride={stem_stride} shrink an image {reduction} times, got "
            f"shape={tuple(shape)}. Use fewer channels or stem_stride=1."
        )
