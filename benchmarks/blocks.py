r"""Building blocks of networks that were measured and left out of the package, and the small networks that take them.

| block | formula |
|---|---|
| CRReLU (arXiv 2405.12954) | max(0, x) + e x exp(-x^2/2), e learned |
| PolyNorm (2411.03884) | b + sum_i a_i N(x^i), i = 1, 2, 3, N(v) = v/sqrt(mean v^2 + 1e-6) over features |
| EvoNorm-S0 (2004.02967) | gamma x sigmoid(v x)/sqrt(var_group(x) + 1e-5) + beta |
| EvoNorm-B0 | gamma x/max(sqrt(var_batch + 1e-5), v x + sqrt(var_instance + 1e-5)) + beta |
| straight-through sign (1308.3432) | sign(x), with the gradient of x where abs(x) <= 1 |

They are classes, so that a configuration can name them: `_target_: benchmarks.blocks.CRReLU`.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from scoregen.models.fourier import fourier_features

WIDTH = 128
Block = Callable[[int], nn.Module]  # of a number of channels


class CRReLU(nn.Module):
    r"""max(0, x) + e x exp(-x^2/2).

    Args:
        first: of e.
    """

    def __init__(self, first: float = 0.01) -> None:
        super().__init__()
        self.first, self.e = first, nn.Parameter(torch.tensor(first))

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() + self.e * x * (-x.square() / 2).exp()


class PolyNorm(nn.Module):
    r"""b + sum of the first three powers, each divided by its root mean square over the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.full((3,), 1 / 3)), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        powers = (x, x.square(), x**3)
        scaled = [v * (v.square().mean(-1, keepdim=True) + 1e-6).rsqrt() for v in powers]
        return self.b + sum(a * v for a, v in zip(self.a, scaled, strict=True))


class EvoNorm(nn.Module):
    r"""What both forms of EvoNorm learn of each channel: gamma, beta and v.

    Args:
        channels: of the images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels))

    def _of(self, parameter: Tensor) -> Tensor:
        return parameter[:, None, None]


class EvoNormS0(EvoNorm):
    r"""Groups of channels are normalised, and the gate is part of it; no activation follows.

    Args:
        channels: of the images. groups: of channels.
    """

    def __init__(self, channels: int, groups: int = 8) -> None:
        super().__init__(channels)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.reshape(len(x), self.groups, -1)
        deviation = (grouped.var(2, correction=0) + 1e-5).sqrt().repeat_interleave(x.shape[1] // self.groups, dim=1)
        return self._of(self.gamma) * x * (self._of(self.v) * x).sigmoid() / deviation[..., None, None] + self._of(
            self.beta
        )


class EvoNormB0(EvoNorm):
    r"""The variance of the batch, running in evaluation, against that of the image.

    Args:
        channels: of the images. momentum: of the running variance.
    """

    running: Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__(channels)
        self.momentum = momentum
        self.register_buffer("running", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        variance = self.running
        if self.training:
            variance = x.var((0, 2, 3), correction=0)
            self.running.lerp_(variance.detach(), self.momentum)
        instance = (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        largest = torch.maximum(self._of((variance + 1e-5).sqrt()), self._of(self.v) * x + instance)
        return self._of(self.gamma) * x / largest + self._of(self.beta)


class Sign(nn.Module):
    r"""A neuron of two values, with a straight-through gradient."""

    def forward(self, x: Tensor) -> Tensor:
        through = x.clamp(-1, 1)
        return through + (torch.where(x >= 0, 1.0, -1.0) - through).detach()


def lecun_normal(module: nn.Module) -> None:
    r"""Weights of variance 1/fan_in, biases 0: what SELU asks for."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and bool(layer.weight.any()):  # not those that start at zero
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.weight[0].numel()))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Perceptron(nn.Module):
    r"""A residual perceptron for vectors, as `MLP`, with a choice of activation."""

    shape, num_classes = (64,), None

    def __init__(self, block: Block, depth: int = 2) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, WIDTH), nn.Linear(WIDTH, 64)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), block(WIDTH), nn.Linear(WIDTH, WIDTH))
        self.into = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
        self.out_of = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
        self.before, self.inside = (nn.ModuleList(block(WIDTH) for _ in range(depth + 1)) for _ in range(2))
        nn.init.zeros_(self.last.weight)

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        told, h = self.time(fourier_features(c_noise, WIDTH)), self.first(z)
        for i, (into, out_of) in enumerate(zip(self.into, self.out_of, strict=True)):
            h = h + out_of(self.inside[i](into(self.before[i](h)) + told))
        output: Tensor = self.last(self.before[-1](h))
        return output

    def matrices(self) -> list[nn.Parameter]:
        r"""Hidden weights in the order of the layers, for Muon."""
        return [layer.weight for pair in zip(self.into, self.out_of, strict=True) for layer in pair]


class Images(nn.Module):
    r"""A convolutional denoiser, told the level by a shift of its channels."""

    shape, num_classes = (1, 8, 8), None

    def __init__(self, block: Block, channels: int = 24, depth: int = 3) -> None:
        super().__init__()
        self.first, self.last = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, channels), (channels, 1)))
        self.time = nn.ModuleList(nn.Linear(32, channels) for _ in range(depth))
        self.norms = nn.ModuleList(block(channels) for _ in range(2 * depth + 1))
        self.layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2 * depth))
        nn.init.zeros_(self.last.weight)

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        h, told = self.first(z), fourier_features(c_noise, 32)
        for i, time_layer in enumerate(self.time):
            inner = self.layers[2 * i](self.norms[2 * i](h)) + time_layer(told)[..., None, None]
            h = h + self.layers[2 * i + 1](self.norms[2 * i + 1](inner))
        output: Tensor = self.last(self.norms[-1](h))
        return output


def classifier(block: Block) -> nn.Module:
    widths, layers = (1, 16, 32, 32), list[nn.Module]()
    for i, (into, out_of) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(into, out_of, 3, stride=1 + (i > 0), padding=1), block(out_of)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))
