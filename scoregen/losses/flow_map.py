r"""Flow maps: a denoiser that is told the level r of a jump, D(u, s, r), for any number of calls from one checkpoint.

On the probability flow du/ds = (u - D)/s let u_r be the point at r. Then D(u, s, r) is defined by

    u_r = D(u, s, r) + (r/s) (u - D(u, s, r))

so that DDIM's step with it is exact. D(u, s, s) is E[y_0 | u], D(u, s, 0) the end of the path, which a consistency
model gives. It does not depend on the affine path (VP, VE, flow). What it is trained towards:
`scoregen.losses.flow_map_targets`.

Reference: Boffi, Albergo, Vanden-Eijnden (2025), arXiv 2505.18825; Frans et al. (2024), arXiv 2410.12557; Geng et al.
(2025), arXiv 2505.13447.
"""

from fractions import Fraction
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from scoregen import checks
from scoregen.keys import Keys
from scoregen.losses.base import Loss, TrainableDenoiser, drop_labels
from scoregen.losses.flow_map_targets import JumpBatch, Points, meanflow, progressive
from scoregen.losses.jacobian import random_state, restore_random_state
from scoregen.losses.noise_levels import LogNormal, NoiseLevels, stratified
from scoregen.losses.weightings import EDMWeighting, Weighting
from scoregen.models.protocol import jump, takes_next
from scoregen.parallel import gather
from scoregen.rng import Generators, forked, rand, randn
from scoregen.sde.path import expand
from scoregen.sde.process import SDE

_DRAWS = 5  # uniform numbers of a jump: the other level, whether its ends are those of the process, direction, cut
_PARTS = ("jumps", "matching")
_FINEST = 10**6  # denominator of the share that jumps
_LEAST = Fraction(1, _FINEST)


class FlowMap(Loss):
    r"""Denoising score matching on a part of the batch; on the rest, jumps that are trained towards their own law.

        Starts from a trained denoiser, or from scratch. The network must be told the next level (next_level=true).
        Targets have no gradient and the dropout mask of what is trained. No derivative of the network is taken.

    Args:
        target: target of a jump: "progressive", two shorter jumps of the network, or "meanflow", the differential law,
            with a central difference along the network's own flow.
        noise_levels: law of s, and of both levels of a jump; log-normal with mean -.8 and std 1.7 of log s unless
            given.
        weighting: w(s) of both parts; EDM's unless given.
        matching: part of the batch that is score matching, in (0, 1).
        to_data: probability that a jump ends at the data, r = 0.
        to_noise: probability that the larger level of a jump is s_max, where sampling starts; .1 unless given, and 0
            with meanflow, whose target multiplies errors there by (c + s_max)/c.
        upward: probability that a jump leads to more noise, as encoding does: from s_min in place of the data. It
            costs quality of samples, so it is 0 unless given; .3 for encoding in few calls.
        label_dropout: probability of training a sample without its label.
        h: half the difference of log s of the derivative (meanflow).

    Raises:
        ValueError: values out of range; in `begin`, a model that is not told the next level; a batch so small
            that one of its parts may be empty, where there are gradients.
    """

    comparable = False  # the targets of jumps move with the network
    needs_next = True
    sharded = True

    def __init__(
        self,
        target: Literal["progressive", "meanflow"] = "progressive",
        noise_levels: NoiseLevels | None = None,
        weighting: Weighting | None = None,
        *,
        matching: float = 0.5,
        to_data: float = 0.35,
        to_noise: float | None = None,
        upward: float = 0.0,
        label_dropout: float = 0.1,
        h: float = 0.01,
    ) -> None:
        super().__init__()
        checks.one_of(("progressive", "meanflow"), target=target)
        to_noise = (0.0 if target == "meanflow" else 0.1) if to_noise is None else to_noise
        checks.inside(0, 1, "()", matching=matching)
        checks.inside(0, 1, to_data=to_data, to_noise=to_noise, upward=upward, label_dropout=label_dropout)
        checks.positive(h=h)
        self.target, self.h = target, float(h)
        self.noise_levels = LogNormal(-0.8, 1.7) if noise_levels is None else noise_levels
        self.weighting = EDMWeighting() if weighting is None else weighting
        self.matching = float(matching)
        share = min(max((1 - Fraction(self.matching)).limit_denominator(_FINEST), _LEAST), 1 - _LEAST)
        self._share = a, b = share.as_integer_ratio()  # of what jumps; its products with places are exact
        self.least_batch = max(-(-b // a), -(-b // (b - a)))  # in which some jump and some do not
        self.to_data, self.to_noise, self.upward = float(to_data), float(to_noise), float(upward)
        self.label_dropout = float(label_dropout)
        self._target = progressive if target == "progressive" else partial(meanflow, h=self.h)
        self._sums, self._counts = torch.zeros(len(_PARTS)), [0] * len(_PARTS)

    def begin(self, model: TrainableDenoiser) -> None:
        if not takes_next(model):
            network = type(getattr(model, "network", model)).__name__
            raise ValueError(
                f"model must be told the next level, got a {type(model).__name__} of {network}, which is not. Choose a "
                "UNet or an MLP with next_level=true, or another loss."
            )

    def forward(
        self,
        model: TrainableDenoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        y = model.sde.to_chart(x_0)
        order, n = self._parts(len(y), generator, y.device)  # the first n of this order jump
        if quantile is None:
            quantile = stratified(len(y), generator, y.device)
        s = self.noise_levels(model.sde, quantile[order])
        label = drop_labels(model, label, self.label_dropout, generator)
        label = None if label is None else label[order]
        eps = randn(y.shape, generator, y.dtype, y.device)[order]
        draws = rand((len(y), _DRAWS), generator, s.dtype, y.device)[order[:n]]
        y = y[order]
        start, r = self._levels(model.sde, s[:n], self.noise_levels(model.sde, draws[:, 0]), draws)
        s = torch.cat([start, s[n:]])
        u = y + expand(s, y) * eps
        first, rest = (None, None) if label is None else (label[:n], label[n:])
        jumps = JumpBatch(y[:n], u[:n], s[:n], first, r, draws[:, 4], model.sigma_data)
        delta = self._delta(model, jumps, Points(y[n:], u[n:], s[n:], rest))
        error = self.weighting(s, model.sigma_data).to(delta) * delta.square().flatten(1).mean(1)
        if torch.is_grad_enabled():  # not what a held-out evaluation sees
            self._record(error.detach(), n)
        return error[torch.argsort(order)]

    def _parts(self, batch: int, generator: Generators, device: torch.device) -> tuple[Tensor, int]:
        r"""An order of a batch in which those that jump come first, and how many they are.

        Who jumps depends on the place in the global batch alone, so it is the same for any number of processes and
        micro-batches. The places are evenly spread, and so are the noise levels of both parts.
        """
        first = generator.first if isinstance(generator, Keys) else 0
        a, b = self._share
        n = (first + batch) * a // b - first * a // b
        if torch.is_grad_enabled() and batch < self.least_batch:
            raise ValueError(
                f"a flow map with loss.matching={self.matching:g} needs at least {self.least_batch} samples of a batch "
                f"in each process and micro-batch, so that some jump and some do not, got {batch}. Give a larger "
                "trainer.batch_size, or a smaller trainer.accumulate."
            )
        places = torch.arange(first, first + batch, device=device)
        jumps = (places + 1) * a // b - places * a // b
        return torch.argsort(1 - jumps, stable=True), n

    def _levels(self, sde: SDE, one: Tensor, other: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        r"""s and r of jumps between two levels, or one and an end of the process, or from end to end."""
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        to_data, to_noise = draws[:, 1] < self.to_data, draws[:, 2] < self.to_noise
        upward = draws[:, 3] < self.upward
        high = torch.where(to_noise, sde.s_max, high)
        down = torch.where(to_data, 0.0, low)
        up = torch.where(to_data, sde.s_min, low)
        return torch.where(upward, up, high), torch.where(upward, high, down)

    def _delta(self, model: TrainableDenoiser, jumps: JumpBatch, rest: Points) -> Tensor:
        r"""D minus its target, (B, *S), of the jumps and then of the rest."""
        # The calls with a gradient come first: autocast would otherwise reuse weights that it has cast without one.
        state = random_state(jumps.u.device)
        online = _together(model, jumps, rest) if _without_masks(model) else _apart(model, jumps, rest)

        def denoise(u: Tensor, s: Tensor, r: Tensor | None) -> Tensor:
            with forked(u.device):
                restore_random_state(state, u.device)
                return jump(model, u, s, jumps.label, r)

        with torch.no_grad():
            targets = [self._target(denoise, jumps).to(rest.y)] if len(jumps.u) else []
        return online - torch.cat([*targets, rest.y])

    @torch.no_grad()
    def _record(self, error: Tensor, n: int) -> None:
        self._sums = self._sums.to(error) + torch.stack([error[:n].sum(), error[n:].sum()])
        self._counts = [self._counts[0] + n, self._counts[1] + len(error) - n]

    def metrics(self) -> dict[str, float]:
        r"""Mean losses of jumps and of score matching since the last call, over all processes."""
        found = torch.tensor(gather([self._sums.tolist(), self._counts]), dtype=torch.float64).sum(0)
        self._sums, self._counts = torch.zeros_like(self._sums), [0] * len(_PARTS)
        return {name: float(total / n) for name, total, n in zip(_PARTS, *found, strict=True) if n}


def _without_masks(model: TrainableDenoiser) -> bool:
    r"""Whether a network states that it has no dropout, so that its calls need no masks in common."""
    return getattr(getattr(model, "network", None), "dropout", None) == 0


def _together(model: TrainableDenoiser, jumps: JumpBatch, rest: Points) -> Tensor:
    r"""D of the jumps and of the rest in one call, which is faster."""
    label = None if jumps.label is None or rest.label is None else torch.cat([jumps.label, rest.label])
    levels = [torch.cat([jumps.s, rest.s]), torch.cat([jumps.r, rest.s])]
    return jump(model, torch.cat([jumps.u, rest.u]), levels[0], label, levels[1])


def _apart(model: TrainableDenoiser, jumps: JumpBatch, rest: Points) -> Tensor:
    r"""The same in two calls: the masks of a batch cannot be drawn again for a part of it."""
    moved = [jump(model, jumps.u, jumps.s, jumps.label, jumps.r)] if len(jumps.u) else []
    return torch.cat([*moved, model(rest.u, rest.s, rest.label)])
