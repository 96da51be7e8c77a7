r"""Classification by denoising labels: the label is what is denoised, the image is what the denoiser is told.

    y_0 = e_k, the embedding of class k;   u = y_0 + s eps;   p = softmax F(f(x), u/sqrt(1 + s^2), log(s)/4)
    D(u, s | x) = E[y_0 | u, x] = sum_k p_k e_k,   exact where p_k is proportional to p(k | x) exp(-|u - e_k|^2/(2 s^2))

Each block is a network of its own, for the noise ratios about one level, and is trained by itself. A sampler takes
D(u, s | x) as any other denoiser and ends at a label. From noise it draws one from p(k | x), which is right with
probability sum_k p_k^2; from u = 0 a deterministic one ends at the most likely class, so that is the classifier:

    u = 0 at s_max;   u <- D + (n/s) (u - D) from each level s to the next n;   logits: log p of the last call

Reference: Li, Teh, Pascanu (2025), arXiv 2503.24322.
"""

import copy
from itertools import pairwise
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import whole
from scoregen.models.denoiser import AbstractDenoiser
from scoregen.models.fourier import fourier_features
from scoregen.sde.path import as_time, expand
from scoregen.sde.process import SDE

_TIME = 16  # numbers that tell the level
_NEEDED = ("features", "classify", "num_features", "num_classes")


class LabelFeatures(Protocol):
    r"""What `LabelNetwork` asks of a classifier; `Classifier` and `ViTClassifier` have it."""

    num_features: int
    num_classes: int

    def features(self, x: Tensor) -> Tensor:
        r"""Features (B, num_features) of inputs (B, *S)."""
        ...

    def classify(self, features: Tensor) -> Tensor:
        r"""Logits (B, num_classes) of features (B, num_features)."""
        ...


class LabelNetwork(nn.Module):
    r"""A classifier whose features are told the noisy label: logits = classify(f + W SiLU(V [f, z, time])), f = f(x).

    Args:
        network: a classifier with `features`, `classify`, `num_features` and `num_classes`.
        width: hidden units of what tells it.
        blocks: networks, each for the noise ratios about one level; the second and further ones are copies of
            `network` with first weights of their own. 1: one for all levels.

    Raises:
        TypeError: the network lacks a part. ValueError: values out of range.
    """

    def __init__(self, network: nn.Module, width: int = 128, blocks: int = 1) -> None:
        super().__init__()
        whole(1, width=width, blocks=blocks)
        if lacking := [name for name in _NEEDED if not hasattr(network, name)]:
            raise TypeError(
                f"network must have {', '.join(_NEEDED)}, and {type(network).__name__} has no {lacking[0]}. Give a "
                "classifier such as scoregen.models.Classifier."
            )
        self.width, self.blocks, self.network = int(width), int(blocks), network
        like = cast(LabelFeatures, network)
        self.num_classes, self.shape = like.num_classes, getattr(network, "shape", None)
        self.others = nn.ModuleList(_fresh(network) for _ in range(self.blocks - 1))
        into = like.num_features + like.num_classes + _TIME
        self.into = nn.ModuleList(nn.Linear(into, width) for _ in range(self.blocks))
        self.out_of = nn.ModuleList(nn.Linear(width, like.num_features) for _ in range(self.blocks))

    def features(self, x: Tensor, block: int = 0) -> Tensor:
        r"""Features (B, F) of inputs (B, *S) for a block."""
        return self._network(block).features(x)

    def forward(self, features: Tensor, z: Tensor, c_noise: Tensor, block: int = 0) -> Tensor:
        r"""Logits (B, K) of features (B, F), noisy labels z (B, K) of about unit scale and c_noise (B,)."""
        told = torch.cat([features, z.to(features), fourier_features(c_noise, _TIME).to(features)], dim=1)
        return self._network(block).classify(features + self.out_of[block](functional.silu(self.into[block](told))))

    def _network(self, block: int) -> LabelFeatures:
        return cast(LabelFeatures, self.others[block - 1] if block else self.network)


def _fresh(network: nn.Module) -> nn.Module:
    r"""A copy of a network with other first weights."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return copied


class NoPropClassifier(nn.Module):
    r"""A classifier by label denoising: deterministic from u = 0, so a function of x, which smoothing can certify.

    Args:
        network: told the noisy label. process: of the labels, one-hot in data units, with an affine chart. Its range
            of noise ratios is what is trained; the levels are even in its time.
        steps: calls of the network; None: one for each block.

    Raises:
        ValueError: steps < 1, or a chart that is not affine.

    Reference: Li, Teh, Pascanu (2025), arXiv 2503.24322.
    """

    compiled_parts: ClassVar[tuple[str, ...]] = ("network",)
    embedding: Tensor

    def __init__(self, network: LabelNetwork, process: SDE, steps: int | None = None) -> None:
        super().__init__()
        if steps is not None:
            whole(1, steps=steps)
        if (chart := process.chart.as_affine()) is None:
            raise ValueError(f"process must have an affine chart for labels, got {type(process.chart).__name__}.")
        self.network, self.process, self.steps = network, process, steps
        self.num_classes, self.shape = network.num_classes, network.shape
        self.sigma_data = abs(chart.scale) * (self.num_classes - 1) ** 0.5 / self.num_classes
        self.block_levels = even_levels(process, network.blocks)
        self.levels = even_levels(process, network.blocks if steps is None else int(steps))
        self.register_buffer("embedding", process.to_chart(torch.eye(self.num_classes)))

    def given(self, x: Tensor) -> "LabelDenoiser":
        r"""D(u, s | x) of inputs x (B, *S), for any sampler; features are computed once."""
        return LabelDenoiser(self, x)

    def forward(self, x: Tensor) -> Tensor:
        r"""Logits (B, K) of inputs (B, *S): log p of the last call, up to a constant."""
        denoiser = self.given(x)
        u = self.embedding.new_zeros(len(x), self.num_classes)
        for s, n in pairwise(self.levels):
            denoised = denoiser(u, s)
            u = denoised + n / s * (u - denoised)
        return denoiser.logits(u, self.levels[-1])


class LabelDenoiser(AbstractDenoiser):
    r"""D(u, s | x) = sum_k p_k e_k for inputs that are bound to it; made by `NoPropClassifier.given`.

    Args:
        classifier: has the network. x: inputs (B, *S), one for each label.
    """

    def __init__(self, classifier: NoPropClassifier, x: Tensor) -> None:
        super().__init__()
        self.classifier, self.x, self.sde = classifier, x, classifier.process
        self._features: dict[int, Tensor] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.classifier.num_classes,)

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        r"""E[y_0 | u, x].

        Args:
            u: (B, K) in EDM coordinates; s: noise ratio, () or (B,); label: must be None, it is what is denoised.

        Raises:
            ValueError: a label, or another number of noisy labels than of inputs.
        """
        if label is not None:
            raise ValueError("label must be None for a denoiser of labels, which it is what is asked. Leave it out.")
        return self.logits(u, s).softmax(1).to(u) @ self.classifier.embedding.to(u)

    def logits(self, u: Tensor, s: Tensor | float) -> Tensor:
        r"""log p (B, K) of each class up to a constant; arguments as `forward`."""
        if len(u) != len(self.x):
            raise ValueError(f"u must have a row for each of the {len(self.x)} inputs, got {len(u)}.")
        s, levels = as_time(s), self.classifier.block_levels
        if len(levels) == 1:
            return self._logits(u, s, 0)
        times = self.sde.time_of(as_time(levels)).to(s.device)
        block = (times - self.sde.time_of(s)[..., None]).abs().argmin(-1)
        if s.ndim == 0:
            return self._logits(u, s, int(block))
        each = torch.stack([self._logits(u, s, number) for number in range(len(levels))], dim=1)
        return each[torch.arange(len(u), device=u.device), block.to(u.device)]

    def _logits(self, u: Tensor, s: Tensor, block: int) -> Tensor:
        network = self.classifier.network
        if block not in self._features:
            self._features[block] = network.features(self.x, block)
        c_noise = torch.zeros_like(u[:, 0]) + expand(s.log() / 4, u[:, 0])
        logits: Tensor = network(self._features[block], expand((1 + s**2).rsqrt(), u) * u, c_noise, block)
        return logits


def even_levels(process: SDE, count: int) -> tuple[float, ...]:
    r"""`count` noise ratios from s_max to s_min at even times of a process; s_max alone for one."""
    times = process.time_of(as_time([process.s_max, process.s_min]))
    inner = process.noise_ratio(torch.linspace(times[0].item(), times[1].item(), count, dtype=torch.float64))
    return (process.s_max, *inner.tolist()[1:])
