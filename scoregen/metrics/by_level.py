r"""What a denoiser knows at each noise ratio: which points it has learnt by heart, and what labels tell.

    residual(x, s) = |y_0 - D(y_0, s)|^2 / s^2                          no noise is added
    I(label; y_0) = integral (mmse(s) - mmse(s | label)) / s^2 d log s      in nats

mmse is E|y_0 - D(y_0 + s eps, s)|^2. The integral is that of 1/2 (mmse - mmse(. | label)) over snr = 1/s^2.

Reference: Guo, Shamai, Verdu (2005), IEEE Trans. Inf. Theory 51(4), theorem 1.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoregen.checks import whole
from scoregen.models.protocol import DenoiserLike, check_mean
from scoregen.rng import Generators, randn

BATCH = 250


@dataclass(frozen=True)
class Memorisation:
    r"""How well the residual tells training points from held-out ones, at L noise ratios.

    Attributes:
        s: noise ratios, (L,).
        training, held_out: mean residuals, (L,).
        auroc: the probability that a held-out residual is above a training one, (L,): 1/2 where nothing was learnt by
            heart, 1 where everything was.
    """

    s: Tensor
    training: Tensor
    held_out: Tensor
    auroc: Tensor


@dataclass(frozen=True)
class Information:
    r"""The mutual information of label and data.

    Attributes:
        nats: the integral over the noise ratios; its standard_error over the samples, with paired noise.
        s: noise ratios, (L,). density: (L,), nats for each step of log s: where on the path the class is decided.
        loss, loss_with_label: E|y_0 - D|^2 of a sample without and with its label, (L,). Errors of the network need
            not cancel: where the second is above the first it did not learn the label.
    """

    nats: float
    standard_error: float
    s: Tensor
    density: Tensor
    loss: Tensor
    loss_with_label: Tensor


def residuals(denoiser: DenoiserLike, x: Tensor, s: Sequence[float], label: Tensor | None = None) -> Tensor:
    r"""|y_0 - D(y_0, s)|^2 / s^2 of data x (N, *S) at noise ratios (L,): (N, L)."""
    found = []
    with torch.no_grad():
        for y, given in _batches(denoiser, x, label):
            found.append(torch.stack([_squared(y - denoiser(y, level, given)) / level**2 for level in s], 1))
    return torch.cat(found)


def memorisation(
    denoiser: DenoiserLike,
    training: tuple[Tensor, Tensor | None],
    held_out: tuple[Tensor, Tensor | None],
    s: Sequence[float],
) -> Memorisation:
    r"""Tells points that a denoiser was trained on from others, by its residual.

    Args:
        denoiser: D(u, s) of a process.
        training, held_out: data (N, *S) and (M, *S) in their own units, and their labels or None.
        s: noise ratios.

    Raises:
        ValueError: a part without points, or a consistency function.
    """
    check_mean(denoiser)
    if not len(training[0]) or not len(held_out[0]):
        raise ValueError(f"both parts must have points, got {len(training[0])} and {len(held_out[0])}.")
    known, other = (residuals(denoiser, x, s, label) for x, label in (training, held_out))
    areas = torch.stack([auroc(known[:, k], other[:, k]) for k in range(len(s))])
    return Memorisation(torch.tensor(s, dtype=torch.float64), known.mean(0), other.mean(0), areas)


def auroc(low: Tensor, high: Tensor) -> Tensor:
    r"""P(a draw of `high` > one of `low`), ties half, (): Mann and Whitney's statistic over the number of pairs."""
    ordered = low.sort().values
    below = torch.searchsorted(ordered, high.contiguous())
    at_most = torch.searchsorted(ordered, high.contiguous(), right=True)
    return (below + at_most).double().mean() / (2 * len(low))


def information(
    denoiser: DenoiserLike, x: Tensor, label: Tensor, *, levels: int = 64, generator: Generators = None
) -> Information:
    r"""The mutual information of label and data from the losses of one conditional network, in nats.

        The network must have learnt to do without its label, by label dropout. Exact for an exact denoiser, up to what
        lies outside its range of noise ratios; at most the entropy of the labels but for its errors.

    Args:
        denoiser: D(u, s, label), where label None stands for no label.
        x: data (N, *S) in its own units, held out from the training. label: (N,) integers.
        levels: noise ratios, equally spaced in log s.
        generator: of the noise; one, or a list with one a sample.

    Raises:
        ValueError: fewer than two levels or samples, or a consistency function.
    """
    check_mean(denoiser)
    whole(2, levels=levels, samples=len(x))
    sde = denoiser.sde
    s = torch.logspace(math.log10(sde.s_min), math.log10(sde.s_max), levels, dtype=torch.float64)
    weight = torch.full_like(s, math.log(sde.s_max / sde.s_min) / (levels - 1))
    weight[[0, -1]] /= 2  # the trapezoidal rule
    gaps, sums = [], torch.zeros(2, levels, dtype=torch.float64)
    with torch.no_grad():
        for y, given, eps in _noisy(denoiser, x, label, generator):
            plain, told = [], []
            for level in s.tolist():
                u = y + level * eps
                plain.append(_squared(y - denoiser(u, level)))
                told.append(_squared(y - denoiser(u, level, given)))
            both = torch.stack([torch.stack(plain, 1), torch.stack(told, 1)]).double().cpu()  # (2, B, L)
            sums += both.sum(1)
            gaps.append((both[0] - both[1]) / s**2)
    gap, (loss, loss_with_label) = torch.cat(gaps), sums / len(x)
    own = gap @ weight
    error = float(own.std() / math.sqrt(len(own)))
    return Information(float(own.mean()), error, s, gap.mean(0), loss, loss_with_label)


def _batches(denoiser: DenoiserLike, x: Tensor, label: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    for first in range(0, len(x), BATCH):
        part = slice(first, first + BATCH)
        yield denoiser.sde.to_chart(x[part]), None if label is None else label[part]


def _noisy(
    denoiser: DenoiserLike, x: Tensor, label: Tensor, generator: Generators
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    r"""Batches with their noise, which is drawn for all at once, so that it does not depend on the batch."""
    whole_noise: Tensor | None = None
    first = 0
    for y, given in _batches(denoiser, x, label):
        if whole_noise is None:
            whole_noise = randn((len(x), *y.shape[1:]), generator, y.dtype, y.device)
        yield y, given, whole_noise[first : first + len(y)]
        first += len(y)


def _squared(error: Tensor) -> Tensor:
    return error.flatten(1).square().sum(1)
