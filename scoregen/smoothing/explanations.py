r"""Explanations of a smoothed classifier: which changes of an input raise a class's probability, and what is certain.

F(x) = P(f(x + sigma eps) = c) has a gradient that needs answers alone (Stein's identity), whatever f is:

    grad F(x) = E[1{f = c} eps] / sigma = E[(1{f = c} - p) eps] / sigma,   p = F(x)
    grad Phi^{-1}(F) = grad F / phi(Phi^{-1}(p)),   of length at most 1/sigma, which a half-space attains.

The second form of grad F is estimated: its variance is 1 - p times that of the first.

**Direction.** |v' H v| = |E[1{f = c} ((v.eps)^2 - 1)]| / sigma^2 <= 2 phi(1)/sigma^2 for the Hessian H of F, a unit v.
So F grows along v in the ball of radius lo sigma^2 / (2 phi(1)), lo a lower bound of <grad F, v>. v is the gradient
from the first half of the draws. lo is the empirical Bernstein bound from the second half, of X = (1{f = c} - m)
clip(v.eps, -3, 3) with the first half's share m: |X| <= 3 max(m, 1 - m), and clipping costs at most E(z - 3)^+.

**Top K.** Membership of an entry in the K largest |gradients| of f's logit is an answer 0 or 1 under noise, and its
vote is certified as a label is. Both answers can win, so each of d entries spends alpha / (2 d) on either bound.

Reference: Maurer, Pontil (2009), arXiv 0907.3740, theorem 4; Levine, Singla, Feizi (2019), arXiv 1905.12105.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoregen.checks import whole
from scoregen.rng import Stream, generator
from scoregen.smoothing import draws
from scoregen.smoothing.bounds import check_alpha, lower_bound, upper_bound
from scoregen.smoothing.engine import CHUNK, NOT_FINITE, OVERFLOW, Engine, Request, noise_source, placed, rounded
from scoregen.smoothing.guard import Guard
from scoregen.smoothing.noise import AbstractNoise, Gaussian

LIPSCHITZ = 2 * math.exp(-0.5) / math.sqrt(2 * math.pi)  # of grad F, in units of 1/sigma^2
CLIP = 3.0  # a smaller one makes the bound's range small, a larger one what it costs
CLIPPED = math.exp(-(CLIP**2) / 2) / math.sqrt(2 * math.pi) - CLIP * math.erfc(CLIP / math.sqrt(2)) / 2  # E(z - CLIP)^+
LEAST = 4  # draws: two in either half have a variance


@dataclass(frozen=True, eq=False)
class Membership:
    r"""Which entries of an input are among the K largest |gradients| of the classifier's logit, by a vote under noise.

        With probability at least 1 - alpha over the draws all certified memberships of an input are true: at every x'
        closer (l2) to x than an entry's radius, most noisy copies of x' answer as its mask says.

    Attributes:
        k: entries that are in for one noisy copy (more where several are equal to the K-th; never a zero gradient).
        share: (*S) float64, of the draws in which an entry is in.
        in_top, out_of_top, undecided: (*S) bool; each entry is in one of them.
        radius: (*S) float64, in x's units; 0 where undecided.
    """

    k: int
    share: Tensor
    in_top: Tensor
    out_of_top: Tensor
    radius: Tensor

    @property
    def undecided(self) -> Tensor:
        r"""(*S) bool: neither is proved."""
        return ~(self.in_top | self.out_of_top)


@dataclass(frozen=True, eq=False)
class Explanation:
    r"""What raises one class's probability F under noise, near an input x (*S); all tensors on the CPU.

    Attributes:
        label: the class.
        probability: share of the n draws with this answer.
        p_lower: lower bound of F(x), right with probability 1 - alpha.
        gradient: (*S) float64, of Phi^{-1}(F), estimated from all draws, per unit of x; 0 if all draws agree.
        standard_error: (*S) float64, of each entry of the gradient; infinite if all draws agree.
        direction: (*S) float64, of length 1: the gradient from the first half of the draws; 0 if they all agree.
        direction_radius: with probability 1 - alpha, F grows along `direction` at every x' closer (l2) than this; 0:
            nothing is proved.
        cosine_lower: with probability 1 - 2 alpha, a lower bound of the cosine of `direction` and grad F(x); -1:
            nothing is proved.
        n: draws. alpha: failure probability of one statement.
        top: where it was asked for.
    """

    label: int
    probability: float
    p_lower: float
    gradient: Tensor
    standard_error: Tensor
    direction: Tensor
    direction_radius: float
    cosine_lower: float
    n: int
    alpha: float
    top: Membership | None = None


@dataclass(frozen=True)
class Question:
    r"""How explanations are drawn; arguments as `SmoothedClassifier.explain`.

    Raises:
        ValueError: a number out of its range.
    """

    n: int
    alpha: float
    n0: int
    top: int | None
    seed: int

    def __post_init__(self) -> None:
        whole(LEAST, n=self.n)
        whole(1, n0=self.n0)
        check_alpha(self.alpha)
        if self.top is not None:
            whole(1, top=self.top)

    def half(self, x: Tensor, index: int, number: int) -> Request:
        r"""The draws of the first half (0) or of the second (1)."""
        start, end = number * (self.n // 2), (self.n // 2, self.n)[number]
        return Request(x, index, Stream.EXPLAIN, start, int(end) - int(start))


def check_gaussian(noise: AbstractNoise) -> float:
    r"""Returns sigma.

    Raises:
        TypeError: for other noise, which has another identity of Stein.
    """
    if not isinstance(noise, Gaussian):
        raise TypeError(f"noise must be Gaussian, whose Stein identity gives the gradient, got {noise!r}.")
    return noise.sigma


class Moments:
    r"""Sums of eps, eps^2, 1{f = c} eps and 1{f = c} eps^2 over draws, from which gradient and error follow.

    Args:
        like: one flat draw (d,), whose type and device the sums have.
    """

    def __init__(self, like: Tensor) -> None:
        self.n = self.hits = 0
        self.first, self.second = like.new_zeros(2, len(like)), like.new_zeros(2, len(like))

    def add(self, eps: Tensor, hit: Tensor) -> None:
        r"""Adds draws: eps (m, d), hit (m,) bool, whether the class was the answer."""
        weights = torch.stack((torch.ones_like(hit), hit)).to(eps)
        self.first += weights @ eps
        self.second += weights @ eps.square()
        self.n, self.hits = self.n + len(hit), self.hits + int(hit.sum())

    def gradient(self, sigma: float) -> tuple[Tensor, Tensor]:
        r"""The gradient of Phi^{-1}(F) and its standard error, (d,) each, the error by the delta method.

        With a = 1{f = c} and C = E[(a - p) eps], one draw moves the estimate C / (sigma phi(z)), z = Phi^{-1}(p), by
        ((a - p) eps - C + C z / phi(z) (a - p)) / (sigma phi(z)) / n.
        """
        if self.hits in (0, self.n):
            return torch.zeros_like(self.first[0]), torch.full_like(self.first[0], math.inf)
        p = self.hits / self.n
        z, density = _quantile_and_density(p)
        (all_first, hit_first), (all_second, hit_second) = self.first / self.n, self.second / self.n
        covariance = hit_first - p * all_first
        square = (1 - 2 * p) * hit_second + p * p * all_second
        cross = (1 - 2 * p) * hit_first + p * p * all_first
        tilt = covariance * z / density
        variance = square - covariance.square() + 2 * tilt * cross + tilt.square() * p * (1 - p)
        gradient = covariance * (self.n / (self.n - 1) / (sigma * density))
        return gradient, (variance.clamp_min(0) / self.n).sqrt() / (sigma * density)


def explain_input(guard: Guard, x: Tensor, index: int, label: int | None, question: Question) -> Explanation:
    r"""The explanation of one input.

    Args:
        guard: that asked the classifier, and is shown its answers.
        x: (*S). index: the key of its noise.
        label: the class; None: the one that n0 further draws choose.
        question: number and seed of the draws.

    Raises:
        TypeError: the noise is not Gaussian.
        ValueError: an answer is not finite, or `top` exceeds what there is.
    """
    engine = guard.engine
    sigma = check_gaussian(engine.noise)
    if label is None:
        label = int(guard.count([Request(x, index, Stream.SELECTION, 0, question.n0)], question.seed)[0].argmax())
    source = noise_source(placed(engine.classifier, x)[0])
    votes = None if question.top is None else _Votes(x, question.top)
    moments = Moments(torch.zeros(x.numel(), dtype=torch.float64, device=source))
    for eps, hit in _answered(guard, question.half(x, index, 0), question.seed, label, votes):
        moments.add(eps, hit)
    direction = torch.nn.functional.normalize(moments.gradient(sigma)[0], dim=0)
    share, along = moments.hits / moments.n, []
    for eps, hit in _answered(guard, question.half(x, index, 1), question.seed, label, votes):
        moments.add(eps, hit)
        along.append((hit.double() - share) * (eps @ direction).clamp(-CLIP, CLIP))
    slope = (bernstein(torch.cat(along), CLIP * max(share, 1 - share), question.alpha) - CLIPPED) / sigma
    gradient, error = moments.gradient(sigma)
    p_lower = float(lower_bound(moments.hits, moments.n, question.alpha))
    steepest = _quantile_and_density(max(p_lower, 0.5))[1] / sigma
    return Explanation(
        label=label,
        probability=moments.hits / moments.n,
        p_lower=p_lower,
        gradient=gradient.cpu().view(x.shape),
        standard_error=error.cpu().view(x.shape),
        direction=direction.cpu().view(x.shape),
        direction_radius=max(0.0, slope) * sigma**2 / LIPSCHITZ,
        cosine_lower=min(1.0, slope / steepest) if slope > 0 else -1.0,
        n=moments.n,
        alpha=float(question.alpha),
        top=None if votes is None else votes.conclude(moments.n, engine.noise, question.alpha),
    )


def bernstein(values: Tensor, most: float, alpha: float) -> float:
    r"""A lower bound of a mean, wrong with probability alpha at most, from independent values (N,) in [-most, most]."""
    n, tail = len(values), math.log(2 / alpha)
    return float(values.mean() - (2 * values.var() * tail / n).sqrt()) - 7 * 2 * most * tail / (3 * (n - 1))


def _quantile_and_density(p: float) -> tuple[float, float]:
    from scipy.special import ndtri

    z = float(ndtri(p))
    return z, math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _answered(
    guard: Guard, request: Request, seed: int, label: int, votes: "_Votes | None"
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Each chunk's draws eps (m, d) in float64, and whether the label was the answer (m,); one batch is in memory."""
    engine, x = guard.engine, request.x
    sigma = check_gaussian(engine.noise)
    device, dtype = placed(engine.classifier, x)
    source, chunks = noise_source(device), list(request.chunks())
    group = max(1, engine.batch_size // CHUNK)
    for some in (chunks[i : i + group] for i in range(0, len(chunks), group)):
        keyed = [(generator(seed, request.stream, request.index, first, device=source), m) for first, m in some]
        drawn = [draws.normal((m, *x.shape), key) for key, m in keyed]
        noisy = torch.cat([rounded((eps * sigma).add_(x.to(source)), dtype) for eps in drawn]).to(device)
        batches = torch.split(noisy, engine.batch_size)
        answers = torch.cat([_answers(engine, batch, label, votes, request.index) for batch in batches])
        guard.recount([replace(request, start=some[0][0], draws=len(answers))], seed, answers)
        hits = torch.split((answers == label).to(source), [m for _, m in some])
        yield from zip((eps.flatten(1) for eps in drawn), hits, strict=True)


def _answers(engine: Engine, noisy: Tensor, label: int, votes: "_Votes | None", index: int) -> Tensor:
    r"""The class of each noisy input; its gradient votes where membership was asked for."""
    with torch.set_grad_enabled(votes is not None):
        logits = engine.logits(noisy.requires_grad_(votes is not None))
        largest, place = logits.max(1)
        if lost := int((~largest.isfinite()).sum()):
            raise ValueError(f"{NOT_FINITE} {lost} noisy copies of input {index}. {OVERFLOW}")
        if votes is not None:
            votes.add(noisy, logits[:, label])
    return place


class _Votes:
    r"""How often each entry is among the k largest |gradients|."""

    def __init__(self, x: Tensor, k: int) -> None:
        if k > x.numel():
            raise ValueError(f"top must be at most the {x.numel()} entries of an input, got top={k}.")
        self.k, self.shape = k, x.shape
        self.counts = torch.zeros(x.numel(), dtype=torch.int64)

    def add(self, noisy: Tensor, logit: Tensor) -> None:
        if not logit.requires_grad:
            raise ValueError("top needs a classifier with gradients, got logits without. Leave top out.")
        (gradient,) = torch.autograd.grad(logit.sum(), noisy)
        size = gradient.flatten(1).abs()
        least = size.topk(self.k, dim=1).values[:, -1:]
        self.counts += ((size >= least) & (size > 0)).sum(0).cpu()  # of equals all: else the order in memory decides

    def conclude(self, n: int, noise: AbstractNoise, alpha: float) -> Membership:
        return memberships(self.counts.view(self.shape), n, self.k, noise, alpha)


def memberships(counts: Tensor, n: int, k: int, noise: AbstractNoise, alpha: float) -> Membership:
    r"""What counts (*S) of n draws prove about the membership of all entries, together at alpha."""
    each = alpha / (2 * counts.numel())
    lower, upper = (bound(counts.flatten().numpy(), n, each) for bound in (lower_bound, upper_bound))
    radii = [max(noise.radius(a, 1 - a), noise.radius(1 - b, b)) for a, b in zip(lower, upper, strict=True)]
    return Membership(
        k=k,
        share=counts.double() / n,
        in_top=torch.from_numpy(lower > 0.5).view(counts.shape),
        out_of_top=torch.from_numpy(upper < 0.5).view(counts.shape),
        radius=torch.tensor(radii, dtype=torch.float64).view(counts.shape),
    )
