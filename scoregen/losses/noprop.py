r"""Label denoising: each block of a classifier learns by itself to denoise labels, given the input.

    L = E w(s) error(p(u, s | x), y),   u = y + s eps,   y = e_label,   D = sum_k p_k e_k

| error | value | weighting unless given |
|---|---|---|
| cross_entropy | -log p_label | 1 |
| squared | abs(D - y)^2 | d SNR: 1/s^2, or SNR(s_next) - SNR(s) of each block, SNR = 1/s^2 |

The variants of the paper are three weights of the squared error:

    CT   2 s^-3 ds = -d SNR:   LogUniform, 1/s^2
    DT   its Riemann sum over the levels of T blocks
    FM   s^-2 ds, the squared error of the velocity on a straight path, t uniform:   FlowTime, (1 + 1/s)^2

Reference: Li, Teh, Pascanu (2025), arXiv 2503.24322, equations 8 (DT), 13 (CT) and 16 (FM).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from scoregen import checks
from scoregen.losses.base import Loss
from scoregen.losses.noise_levels import LogUniform, NoiseLevels, stratified
from scoregen.losses.noisy_copies import at_least_float32, noise_of, required
from scoregen.losses.weightings import DataWeighting, NoiseWeighting, Weighting
from scoregen.models import NoPropClassifier
from scoregen.rng import Generators, randn
from scoregen.sde.path import as_time, expand


class NoProp(Loss):
    r"""Label denoising, NoProp's DT, CT and FM in one.

        Step k of a training trains block k mod T, at its level, and computes no other: their gradients are None, and
        what is kept for the backward pass is of one block. Without gradients (held-out evaluation) the value is over
        all blocks.

    Args:
        noise_levels: law of the noise ratio of a network of one block; LogUniform unless given. Of several blocks each
            has its own level, and it must be None.
        weighting: w(s); see the table of the module unless given.
        error: "cross_entropy" of p, or the "squared" error of D.
        noise_sigma: standard deviation of noise on the inputs, in their units, for a certificate at this sigma.

    Raises:
        ValueError: an unknown error, a negative sigma, or noise levels for several blocks. TypeError: a model that is
            no NoPropClassifier.

    Reference: Li, Teh, Pascanu (2025), arXiv 2503.24322.
    """

    needs_labels = True

    def __init__(
        self,
        noise_levels: NoiseLevels | None = None,
        weighting: Weighting | None = None,
        error: Literal["cross_entropy", "squared"] = "cross_entropy",
        noise_sigma: float = 0.0,
    ) -> None:
        super().__init__()
        checks.one_of(("cross_entropy", "squared"), error=error)
        checks.at_least(0, noise_sigma=noise_sigma)
        self.noise_levels, self.weighting, self.error, self.noise_sigma = noise_levels, weighting, error, noise_sigma
        self._step = 0

    def begin(self, model: NoPropClassifier) -> None:
        if not isinstance(model, NoPropClassifier):
            raise TypeError(f"model must be a NoPropClassifier, got {type(model).__name__}. Choose model=noprop.")
        blocks = model.network.blocks
        if blocks > 1 and self.noise_levels is not None:
            raise ValueError(
                f"noise_levels must be None for {blocks} blocks, each of which has one level, got "
                f"{type(self.noise_levels).__name__}. Set loss.noise_levels=null, or model.network.blocks=1."
            )

    def at(self, step: int, steps: int) -> None:
        self._step = step

    def forward(
        self,
        model: NoPropClassifier,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        label = required(label)
        noisy = x_0 + noise_of(x_0, self.noise_sigma, 1, generator)[0] if self.noise_sigma else x_0
        y = model.embedding[label]
        if quantile is None:
            quantile = stratified(len(y), generator, y.device)
        s, weight = self._one_network(model, quantile) if model.network.blocks == 1 else self._blocks(model, quantile)
        u = y + expand(s, y) * randn(y.shape, generator, y.dtype, y.device)
        logits = at_least_float32(model.given(noisy).logits(u, s))
        if self.error == "cross_entropy":
            value = functional.cross_entropy(logits, label, reduction="none")
        else:
            value = (logits.softmax(1) @ model.embedding.to(logits) - y).square().sum(1)
        return expand(weight, value) * value

    def _one_network(self, model: NoPropClassifier, quantile: Tensor) -> tuple[Tensor, Tensor]:
        r"""Noise ratios and weights (B,)."""
        s = (self.noise_levels or LogUniform())(model.process, quantile)
        plain = NoiseWeighting() if self.error == "squared" else DataWeighting()
        return s, (self.weighting or plain)(s, model.sigma_data)

    def _blocks(self, model: NoPropClassifier, quantile: Tensor) -> tuple[Tensor, Tensor]:
        r"""The noise ratio and weight () of the block whose turn it is; without gradients (B,), of all blocks."""
        levels, count = as_time(model.block_levels), model.network.blocks
        weights = torch.ones_like(levels) if self.error == "cross_entropy" else snr_increments(model.block_levels)
        if self.weighting is not None:
            weights = self.weighting(levels, model.sigma_data)
        if torch.is_grad_enabled():
            return levels[self._step % count], weights[self._step % count]
        block = (quantile * count).long().clamp(max=count - 1)
        return levels.to(block.device)[block], weights.to(block.device)[block]


def snr_increments(levels: Sequence[float]) -> Tensor:
    r"""SNR(next) - SNR(s) with SNR = 1/s^2 for decreasing noise ratios, (T,) float64: the weights of DT.

        They sum to the growth of the SNR. The levels go on after the last one by the factor of the last two.

    Args:
        levels: two noise ratios or more.
    """
    values = as_time(levels)
    return torch.cat([values, values[-1:] ** 2 / values[-2]]).pow(-2).diff()
