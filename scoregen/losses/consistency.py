r"""Consistency models: denoisers that take any point of a path from noise to data to the end of that path in one call.

    L = (sqrt(|Delta|^2 + c^2) - c) / (s - r),   Delta = D(u_s, s) - stopgrad[D(u_r, r)],   0 <= r < s

u_s and u_r lie on one path, and D(u_0, 0) = u_0. As r approaches s over the training, denoising score matching becomes
the condition that D is constant along paths. Everything happens in chart coordinates, so samples of a multiplicative
process are positive.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from scoregen import checks
from scoregen.losses.base import Loss, TrainableDenoiser, drop_labels
from scoregen.losses.noise_levels import LogNormal, NoiseLevels, stratified
from scoregen.models.denoiser import AbstractDenoiser
from scoregen.parallel import gather
from scoregen.rng import Generators, forked, randn
from scoregen.sde.path import Table, expand

_LARGEST_RATIO = 0.999  # of r/s: nearer levels differ by rounding
_EDGES = Table((0.01, 0.1, 1.0, 10.0))  # noise ratios between the bins of the log


class Gap:
    r"""The lower noise ratio r of a pair, closer to s from stage to stage.

        r = s min(.999, max(0, 1 - eta(s)/q^(stage + 1))),   eta(s) = 1 + k sigmoid(-b s)

    The stage is a function of the step alone, so a resumed run continues in the same stage.

    Args:
        q: factor by which the gap shrinks from stage to stage, > 1.
        k, b: more gap at small noise, >= 0.
        stages: number of stages of equal length over a run, >= 1.

    Raises:
        ValueError: values out of range.

    Reference: Geng et al. (2024), arXiv 2406.14548, section 3.2.
    """

    def __init__(self, q: float = 2.0, k: float = 8.0, b: float = 1.0, stages: int = 8) -> None:
        checks.increasing(1, q=q)
        checks.at_least(0, k=k, b=b)
        checks.whole(1, stages=stages)
        self.q, self.k, self.b, self.stages = float(q), float(k), float(b), int(stages)

    def stage(self, step: int, steps: int) -> int:
        r"""The stage, 0 to stages - 1, at step 0 <= step < steps."""
        return min(self.stages * step // steps, self.stages - 1)

    def __call__(self, s: Tensor, stage: int) -> Tensor:
        r"""r (B,) of noise ratios s (B,), float64."""
        eta = 1 + self.k * torch.sigmoid(-self.b * s)
        return s * (1 - eta / self.q ** (stage + 1)).clamp(0.0, _LARGEST_RATIO)


class AbstractConsistency(Loss):
    r"""The loss of two points of one path; subclasses define how the lower point is found.

    Args:
        noise_levels: law of s; log-normal with mean -1.1 and std 2 of log s unless given.
        gap: how far r is below s, by stage of the training.
        c: constant c of the pseudo-Huber distance, >= 0; 0 is the norm itself (images), .03 suits vectors.
        label_dropout: probability of training a sample without its label.

    Raises:
        ValueError: values out of range.
    """

    comparable = False  # divided by s - r, which shrinks with the stages
    sharded = True
    consistency = True

    def __init__(
        self,
        noise_levels: NoiseLevels | None = None,
        gap: Gap | None = None,
        c: float = 0.0,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        checks.at_least(0, c=c)
        checks.inside(0, 1, label_dropout=label_dropout)
        self.noise_levels = LogNormal(-1.1, 2.0) if noise_levels is None else noise_levels
        self.gap = Gap() if gap is None else gap
        self.c, self.label_dropout = float(c), label_dropout
        self.stage = 0
        self._sums = torch.zeros(2, len(_EDGES.values) + 1)  # norms and numbers in each bin

    @abstractmethod
    def lower(self, y: Tensor, eps: Tensor, s: Tensor, r: Tensor, label: Tensor | None) -> Tensor:
        r"""u_r, the point at r < s of the path through u_s = y + s eps.

        Args:
            y: data in chart coordinates (B, *S); eps: noise (B, *S).
            s, r: (B,) float64, on the device; r may be 0.
            label: (B,) or None.
        """

    def at(self, step: int, steps: int) -> None:
        self.stage = self.gap.stage(step, steps)

    def forward(
        self,
        model: TrainableDenoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        y = model.sde.to_chart(x_0)
        if quantile is None:
            quantile = stratified(len(y), generator, y.device)
        s = self.noise_levels(model.sde, quantile)
        r = self.gap(s, self.stage)
        label = drop_labels(model, label, self.label_dropout, generator)
        eps = randn(y.shape, generator, y.dtype, y.device)
        # The generators of dropout go back to where they were, so that the second call has the mask of the first. The
        # call with a gradient comes first: autocast would otherwise reuse weights that it has cast without one.
        with forked(y.device):
            online = model(y + expand(s, y) * eps, s, label)
        with torch.no_grad():
            u_r = self.lower(y, eps, s, r, label)
            at_data = expand((r == 0).double(), y).bool()
            target = torch.where(at_data, u_r, model(u_r, torch.where(r > 0, r, s), label))
        delta = (online - target).flatten(1)
        if torch.is_grad_enabled():  # not what a held-out evaluation sees
            self._record(s, delta.detach())
        return self.distance(delta) / (s - r).to(delta)

    def distance(self, delta: Tensor) -> Tensor:
        r"""sqrt(|delta|^2 + c^2) - c of rows, (B,): a norm, whose gradient at 0 is 0 for c = 0 too."""
        corner = torch.full_like(delta[:, :1], self.c)
        length: Tensor = torch.linalg.vector_norm(torch.cat([delta, corner], dim=1), dim=1)
        return length - self.c

    @torch.no_grad()
    def _record(self, s: Tensor, delta: Tensor) -> None:
        place = torch.bucketize(s, _EDGES.on(s.device).to(s)).to(delta.device)
        norms = torch.linalg.vector_norm(delta, dim=1)
        rows = torch.stack([norms, torch.ones_like(norms)])
        self._sums = self._sums.to(rows).index_add(1, place, rows)

    def metrics(self) -> dict[str, float]:
        r"""Mean |Delta| in bins of s since the last call, over all processes; and the stage."""
        parts = torch.tensor(gather(self._sums.tolist()), dtype=torch.float64).sum(0)
        self._sums = torch.zeros_like(self._sums)
        edges = _EDGES.values.tolist()
        names = [f"{low}-{high}" for low, high in zip((0, *edges), (*edges, "inf"), strict=True)]
        means = {f"delta/{n}": t / k for n, t, k in zip(names, *parts.tolist(), strict=True) if k}
        return {"stage": self.stage, **means}


class ConsistencyTuning(AbstractConsistency):
    r"""Easy consistency tuning: u_r = y + r eps with the eps of u_s; needs no teacher.

        Starts from a trained denoiser, or from scratch. Both branches must share eps: with independent noise the
        training fails.

    Args:
        noise_levels: law of s; log-normal with mean -1.1 and std 2 of log s unless given.
        gap: how far r is below s, by stage of the training.
        c: constant c of the pseudo-Huber distance, >= 0; 0 is the norm itself (images), .03 suits vectors.
        label_dropout: probability of training a sample without its label.

    Raises:
        ValueError: values out of range.

    Reference: Geng et al. (2024), arXiv 2406.14548, algorithm 1.
    """

    def lower(self, y: Tensor, eps: Tensor, s: Tensor, r: Tensor, label: Tensor | None) -> Tensor:
        return y + expand(r, y) * eps


class ConsistencyDistillation(AbstractConsistency):
    r"""Consistency distillation: u_r is one Heun step of the teacher's probability flow from u_s (Euler's to r = 0).

        Costs two more calls a step than tuning; with a guided teacher the student learns the guided flow.

    Args:
        teacher: a denoiser of the same data in the same chart; it is not trained, and not saved.
        noise_levels: law of s; log-normal with mean -1.1 and std 2 of log s unless given.
        gap: how far r is below s, by stage of the training.
        c: constant c of the pseudo-Huber distance, >= 0; 0 is the norm itself (images), .03 suits vectors.
        label_dropout: probability of training a sample without its label.

    Raises:
        ValueError: values out of range, or a teacher that is no denoiser; in `begin`, a teacher with another chart.

    Reference: Song et al. (2023), arXiv 2303.01469, algorithm 2.
    """

    def __init__(
        self,
        teacher: AbstractDenoiser,
        noise_levels: NoiseLevels | None = None,
        gap: Gap | None = None,
        c: float = 0.0,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__(noise_levels, gap, c, label_dropout)
        if not hasattr(teacher, "sde"):
            raise ValueError(f"teacher must be a denoiser, got {type(teacher).__name__}. Give a diffusion model.")
        self._teacher = (teacher.eval(),)  # in a tuple, so that checkpoints do not hold its weights

    @property
    def teacher(self) -> AbstractDenoiser:
        r"""The denoiser that is distilled, in eval mode."""
        return self._teacher[0]

    def begin(self, model: TrainableDenoiser) -> None:
        super().begin(model)
        x = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
        theirs, ours = self.teacher.sde.to_chart(x), model.sde.to_chart(x)
        if not torch.allclose(theirs, ours):
            raise ValueError(
                f"teacher must have the chart of the model, got a chart that takes {x[0]:g} to {theirs[0]:.4g}; the "
                f"model's takes it to {ours[0]:.4g}. Train both with the same data and process."
            )

    def lower(self, y: Tensor, eps: Tensor, s: Tensor, r: Tensor, label: Tensor | None) -> Tensor:
        teacher = self.teacher.to(y.device)
        u, step = y + expand(s, y) * eps, expand(r - s, y)
        slope = (u - teacher(u, s, label)) / expand(s, y)
        euler = u + step * slope
        inside = torch.where(r > 0, r, s)
        slope_r = (euler - teacher(euler, inside, label)) / expand(inside, y)
        return torch.where(expand((r > 0).double(), y).bool(), u + step * (slope + slope_r) / 2, euler)
