r"""Noisy copies of inputs and what a classifier says of them: the parts that losses for certificates share.

    p_j(x) = softmax f(x + sigma eps_j),   j = 1 ... m,   eps_j ~ N(0, I) fixed within a call of the loss
    F(x) = mean_j p_j(x),   the soft smoothed classifier

The noise is in the units of x, before any normalisation of the classifier.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from scoregen import checks
from scoregen.rng import Generators, randn

Classifier = Callable[[Tensor], Tensor]  # logits (B, K) of inputs (B, *S)


def noise_of(x: Tensor, sigma: float, draws: int, generator: Generators) -> Tensor:
    r"""sigma eps, shape (draws, B, *S), in x's type and on its device; drawn sample by sample."""
    return sigma * randn((len(x), draws, *x.shape[1:]), generator, x.dtype, x.device).transpose(0, 1)


def log_probabilities(model: Classifier, x: Tensor, noise: Tensor) -> Tensor:
    r"""log softmax f(x + noise_j), shape (m, B, K), in float32 at least, from one call of the model.

    Args:
        model: the classifier. x: inputs (B, *S). noise: (m, B, *S).
    """
    logits = at_least_float32(model((x + noise).flatten(0, 1)))
    return logits.reshape(len(noise), len(x), -1).log_softmax(-1)


def log_loss(log_p: Tensor, label: Tensor) -> Tensor:
    r"""mean_j -log p_j(label), shape (B,), of (m, B, K) and (B,)."""
    return -log_p.mean(0).gather(-1, label[:, None]).squeeze(-1)


def one_hot(label: Tensor, log_p: Tensor) -> Tensor:
    r"""Whether a class is the label, shape (B, K)."""
    return label[:, None] == torch.arange(log_p.shape[-1], device=label.device)


def at_least_float32(logits: Tensor) -> Tensor:
    r"""Logits in float32 at least: bfloat16 ones of an autocast network lose small probabilities."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def required(label: Tensor | None) -> Tensor:
    r"""The labels (B,) as integers.

    Raises:
        ValueError: there are none.
    """
    if label is None:
        raise ValueError("label must be given to train a classifier, got None. Choose data with labels.")
    return label.long()


def check_noise(noise_sigma: float, num_noises: int, least: int = 1) -> None:
    r"""Refuses noise of size 0 and fewer draws than `least`."""
    if noise_sigma == 0:
        raise ValueError("noise_sigma must be > 0 and finite, got noise_sigma=0. Use CrossEntropy without noise.")
    checks.positive(noise_sigma=noise_sigma)
    checks.whole(least, num_noises=num_noises)
