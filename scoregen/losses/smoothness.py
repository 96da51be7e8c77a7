r"""Smoothness of the map from noise to data: penalties on the Jacobian J_x = dD/dx_t, added to any other loss.

    step-wise variation   (w |J_x^T v| - a)^2,   a: running mean of w |J_x^T v|
    plain penalty         |J_x^T v|^2 / kappa^2,  kappa = alpha sd^2/(alpha^2 sd^2 + sigma^2)

v is a random direction of about unit length, x_t and D are in chart coordinates (the logarithm for a multiplicative
process), and J_x = J_u / alpha with the Jacobian J_u = dD/du in EDM coordinates, which is what the code computes. A
shift of the process changes nothing. kappa is the Jacobian of isotropic normal data.

J is square, so |J^T v| and |J v| have the same law (that of the singular values with random weights): all estimators
serve one loss.

Reference: Guo et al. (2024), arXiv 2312.04410, equations 8 to 13; Karras et al. (2020), arXiv 1912.04958, section 3.2
(path length).
"""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from scoregen import checks
from scoregen.losses.base import Loss, TrainableDenoiser, WrappedLoss
from scoregen.losses.jacobian import ESTIMATORS, Estimator, Witness
from scoregen.parallel import gather
from scoregen.rng import Generators
from scoregen.sde.path import Table
from scoregen.sde.process import SDE

EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # noise ratios between levels, of per-level targets and of the log


def _paper(sde: SDE, t: Tensor) -> Tensor:
    return sde.variance(t) / sde.alpha(t)


def _eq8(sde: SDE, t: Tensor) -> Tensor:
    return 1 / sde.alpha(t)


def _latent(sde: SDE, t: Tensor) -> Tensor:
    return torch.ones_like(t)


EstimatorName = Literal["finite_difference", "vjp"]
# w / alpha, the factors of |J_u^T v|; w is sigma^2, 1 and alpha
WEIGHTS: dict[str, Callable[[SDE, Tensor], Tensor]] = {"paper": _paper, "eq8": _eq8, "latent": _latent}
# noise ratios that separate the bins; every bin has its own target a
TARGETS: dict[str, tuple[float, ...]] = {"global": (), "per_level": EDGES}


class JacobianLoss(WrappedLoss):
    r"""A loss plus a penalty on |J^T v| at the noisy points where this loss calls the denoiser.

        The points, noise levels and labels (dropped ones included) are those of the first call with a gradient; of a
        base loss that makes several, as `FlowMap` does, this is that of its first samples, which stand for all. Without
        gradients (held-out evaluation) the value is that of base_loss alone. Steps without a penalty cost no more than
        base_loss.

    Args:
        base_loss: any loss of a denoiser.
        strength: lambda >= 0.
        estimator: "finite_difference", "vjp" or an `Estimator`.
        every: k >= 1. The penalty is computed at every k-th step with k times its weight, which has the same gradient
            on average.

    Raises:
        ValueError: values out of range, unknown names. TypeError: base_loss is no loss.
    """

    sharded = True  # what it keeps between steps is for the log

    def __init__(self, base_loss: Loss, strength: float, estimator: Estimator | EstimatorName, every: int) -> None:
        super().__init__(base_loss)
        checks.at_least(0, strength=strength)
        checks.whole(1, every=every)
        self.strength, self.every = float(strength), int(every)
        if isinstance(estimator, str):
            checks.one_of(ESTIMATORS, estimator=estimator)
            self.estimator = ESTIMATORS[estimator]()
        else:
            self.estimator = estimator
        self.second_derivatives |= self.estimator.second_derivatives
        self.sharded = self.sharded and not self.estimator.second_derivatives  # hooks of units see one backward pass
        self.step: int | None = None
        self._sums = torch.zeros(4, len(EDGES) + 1)

    def at(self, step: int, steps: int) -> None:
        super().at(step, steps)
        self.step = step

    def forward(
        self,
        model: TrainableDenoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        due = self.step is None or self.step % self.every == 0
        if not (due and self.strength and torch.is_grad_enabled()):
            return self.base_loss(model, x_0, label, generator, quantile)
        witness = Witness(model, self.estimator)
        value = self.base_loss(witness, x_0, label, generator, quantile)
        norm = self.estimator.norm(witness, generator)
        s, t = witness.s, model.sde.time_of(witness.s)
        weighted = self.factor(model, s, t).to(norm) * norm
        penalty = self.penalty(weighted, s)
        self._record(s, norm / model.sde.alpha(t).to(norm), weighted, penalty)
        often = 1 if self.step is None else self.every  # without `at` no call is left out
        weighted_penalty = self.strength * often * len(value) / len(penalty) * penalty.to(value)
        total: Tensor = value + functional.pad(weighted_penalty, (0, len(value) - len(penalty)))
        return total

    @abstractmethod
    def factor(self, model: TrainableDenoiser, s: Tensor, t: Tensor) -> Tensor:
        r"""The factor (B,) of |J_u^T v| at noise ratios s (B,) and their times t (B,), all float64."""

    @abstractmethod
    def penalty(self, weighted: Tensor, s: Tensor) -> Tensor:
        r"""The penalty (B,) of the weighted norms (B,) at noise ratios s (B,)."""

    @abstractmethod
    def goal(self, s: Tensor) -> Tensor:
        r"""The value (B,) that the penalty draws the weighted norm to, for the log; nan before the first step."""

    @torch.no_grad()
    def _record(self, s: Tensor, norm: Tensor, weighted: Tensor, penalty: Tensor) -> None:
        goal = self.goal(s).to(norm)
        goal = torch.where(goal.isnan(), weighted, goal)  # before there is one
        rows = torch.stack([torch.ones_like(norm), norm, norm * goal / weighted.clamp_min(1e-30), penalty])
        self._sums = self._sums.to(norm).index_add(1, level(s, EDGES).to(norm.device), rows)

    def metrics(self) -> dict[str, float]:
        r"""Means since the last call, over all processes, in bins of s.

        jacobian: |J_x^T v|. target: its value where the penalty vanishes. ratio: jacobian over target. penalty: mean
        over all bins, without the factor `strength`.
        """
        count, norm, target, penalty = torch.tensor(gather(self._sums.tolist()), dtype=torch.float64).sum(0)
        self._sums = torch.zeros_like(self._sums)
        found = dict(super().metrics())
        for i in count.nonzero().flatten().tolist():
            name = f"{(0, *EDGES)[i]}-{(*EDGES, 'inf')[i]}"
            found[f"jacobian/{name}"] = float(norm[i] / count[i])
            found[f"target/{name}"] = float(target[i] / count[i])
            found[f"ratio/{name}"] = float(norm[i] / target[i])
        return found | ({"penalty": float(penalty.sum() / count.sum())} if count.any() else {})


class StepwiseVariation(JacobianLoss):
    r"""Step-wise variation regularisation: (w |J_x^T v| - a)^2 with a running mean a of w |J_x^T v|.

        Asks for equal changes of the image for equal changes of the latent. No map from noise to real data has an
        exactly constant Jacobian, so this is a bias. The mean a is over all processes, starts at the mean of the first
        step with samples of its level, and is saved. The penalty compares with the mean of earlier steps, which all
        micro-batches of a step share; in the first step it is 0.

    Args:
        base_loss: any loss of a denoiser.
        weight: w; "paper": sigma^2, as in the authors' released code (the published equations 9 and 13 invert the
            exponent of equation 8); "eq8": 1, as in equation 8; "latent": alpha, the Jacobian in EDM coordinates.
        target: "global": one a (the paper); "per_level": one for each bin of noise ratios.
        estimator: "finite_difference" (twice the cost of a step), "vjp" (exact, 2 to 2.6 times) or an `Estimator`.
        every: the penalty is computed at every k-th step with k times its weight.
        strength: lambda >= 0. Fidelity: paper, global, 1. VP-like processes with uniform t: eq8, global, 1. VE and EDM:
            latent, per_level, 1 to 5.
        rate: of the running mean.

    Raises:
        ValueError: values out of range, unknown names. TypeError: base_loss is no loss.

    Reference: Guo et al. (2024), arXiv 2312.04410, equations 8 to 13.
    """

    a: Tensor
    pending: Tensor

    def __init__(
        self,
        base_loss: Loss,
        weight: Literal["paper", "eq8", "latent"] = "eq8",
        target: Literal["global", "per_level"] = "global",
        estimator: Estimator | EstimatorName = "finite_difference",
        *,
        every: int = 1,
        strength: float = 1.0,
        rate: float = 0.01,
    ) -> None:
        super().__init__(base_loss, strength, estimator, every)
        checks.inside(0, 1, "(]", rate=rate)
        checks.one_of(WEIGHTS, weight=weight)
        checks.one_of(TARGETS, target=target)
        self.weight, self.target, self.rate = weight, target, rate
        self._edges = TARGETS[target]
        levels = len(self._edges) + 1
        self.register_buffer("a", torch.full((levels,), math.nan))  # nan until there is a sample of this level
        self.register_buffer("pending", torch.zeros(2, levels))  # sums and numbers of the current step

    def at(self, step: int, steps: int) -> None:
        super().at(step, steps)
        self._fold()

    def factor(self, model: TrainableDenoiser, s: Tensor, t: Tensor) -> Tensor:
        return WEIGHTS[self.weight](model.sde, t)

    def penalty(self, weighted: Tensor, s: Tensor) -> Tensor:
        if self.step is None:  # a loop that does not call `at`: every call is a step
            self._fold()
        self._collect(weighted.detach(), s)
        goal = self.goal(s)
        penalty: Tensor = torch.where(goal.isnan(), 0.0, weighted - goal).square()
        return penalty

    def goal(self, s: Tensor) -> Tensor:
        return self.a[level(s, self._edges).to(self.a.device)]

    @torch.no_grad()
    def _collect(self, weighted: Tensor, s: Tensor) -> None:
        seen = weighted.isfinite()  # an overflow costs its step, not the mean
        rows = torch.stack([torch.where(seen, weighted, 0.0), seen]).to(self.pending)
        sums = torch.zeros_like(self.pending).index_add(1, level(s, self._edges).to(rows.device), rows)
        if dist.is_initialized():
            dist.all_reduce(sums)
        self.pending = self.pending + sums

    @torch.no_grad()
    def _fold(self) -> None:
        r"""Folds the sums of the last step into the running means."""
        total, count = self.pending
        mean = torch.where(count > 0, total / count.clamp_min(1), self.a)
        self.a = torch.where(self.a.isnan(), mean, torch.lerp(self.a, mean, self.rate))
        self.pending = torch.zeros_like(self.pending)


class JacobianPenalty(JacobianLoss):
    r"""The plain penalty |J_x^T v|^2 / kappa^2, without a target: the control to compare with.

    Args:
        base_loss: any loss of a denoiser. strength: lambda >= 0; small, .001 to .01.
        estimator, every: as in `StepwiseVariation`.

    Raises:
        ValueError: values out of range, unknown names. TypeError: base_loss is no loss.
    """

    def __init__(
        self,
        base_loss: Loss,
        strength: float = 1e-3,
        estimator: Estimator | EstimatorName = "finite_difference",
        every: int = 1,
    ) -> None:
        super().__init__(base_loss, strength, estimator, every)

    def factor(self, model: TrainableDenoiser, s: Tensor, t: Tensor) -> Tensor:
        factor: Tensor = (model.sigma_data**2 + s**2) / model.sigma_data**2
        return factor

    def penalty(self, weighted: Tensor, s: Tensor) -> Tensor:
        return weighted.square()

    def goal(self, s: Tensor) -> Tensor:
        return torch.ones_like(s)


def level(s: Tensor, edges: tuple[float, ...]) -> Tensor:
    r"""The bin (B,) of noise ratios s (B,)."""
    return torch.bucketize(s, _table(edges).on(s.device).to(s))


_table = functools.cache(Table)  # of the edges, so that they go to a device once
