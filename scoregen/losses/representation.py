r"""Robust representation consistency: pre-training of an encoder that is constant along each path from noise to data.

    L = InfoNCE(q_1, k_2) + InfoNCE(q_2, k_1) + InfoNCE(c(u_i, t_i), stopgrad c(u_j, t_j)),   j = i + 1
    q_a = projection of y_a + t_min eps,   k_a = stopgrad: the same by the target, a slow average of the network
    c = the class token,   u_i = y + t_i eps

y_1, y_2 are strong random views of y, and one eps serves all noisy versions of a sample, so that u_i and u_j lie on one
path. The times t_0 > t_1 > ... are EDM's grid of N points, one index i a batch.

Reference: Lei et al. (2025), arXiv 2501.13094.
"""

import copy
import math

import torch
from torch import Tensor, nn

from scoregen import checks
from scoregen.data import Augmentation
from scoregen.losses.base import Loss
from scoregen.models.vit import ViTClassifier
from scoregen.parallel import gather, gather_rows, rank
from scoregen.rng import Generators, rand, randn
from scoregen.sde.additive import karras


class Resolution:
    r"""The number of grid points N, doubled in stages over a run.

        N(k) = min(first 2^ceil(k/K'), last) + 1,   K' = ceil(K/log2(ceil(last/first) + 1))   for step k of K

    Args:
        first, last: intervals at the start and at the end, 1 <= first <= last.

    Raises:
        ValueError: values out of range.
    """

    def __init__(self, first: int = 20, last: int = 80) -> None:
        checks.whole(1, first=first)
        checks.whole(first, last=last)
        self.first, self.last = int(first), int(last)

    def __call__(self, step: int, steps: int) -> int:
        r"""N at step 0 <= step < steps."""
        length = math.ceil(steps / math.log2(math.ceil(self.last / self.first) + 1))
        doubled: int = self.first * 2 ** math.ceil(step / length)
        return min(doubled, self.last) + 1


class Momentum:
    r"""The decay of the target's average, from `first` to `last` along a sigmoid.

        e = sqrt(first^2 + (last^2 - first^2) k/K),   c = 2 sigmoid(A (e - first)/(last - first)) - 1
        beta(k) = first + c (last - first)            for step k of K

    Args:
        first, last: 0 <= first <= last < 1. sharpness: A > 0.

    Raises:
        ValueError: values out of range.
    """

    def __init__(self, first: float = 0.99, last: float = 0.9999, sharpness: float = 15.0) -> None:
        checks.inside(0, 1, "[)", first=first)
        checks.inside(first, 1, "[)", last=last)
        checks.positive(sharpness=sharpness)
        self.first, self.last, self.sharpness = first, last, sharpness

    def __call__(self, step: int, steps: int) -> float:
        r"""beta at step 0 <= step < steps."""
        if self.first == self.last:
            return self.last
        e = math.sqrt(self.first**2 + (self.last**2 - self.first**2) * step / steps)
        c = 2 / (1 + math.exp(-self.sharpness * (e - self.first) / (self.last - self.first))) - 1
        return self.first + c * (self.last - self.first)


class RepresentationConsistency(Loss):
    r"""The pre-training loss of a `ViTClassifier` (its encoder and projector); labels are not used.

        The loss of a sample depends on the other samples of its batch, from which it is told apart. The batch is that
        of all processes but of one micro-batch: `trainer.accumulate` > 1 gives fewer keys. The target's weights are
        part of the checkpoint.

    Args:
        views: makes the two strong views.
        second_views: makes the second view; `views` makes both unless given.
        temperature: tau > 0 of InfoNCE.
        sigma_min, sigma_max, rho: of the grid of times, 0 < sigma_min < sigma_max, rho > 0.
        resolution: number of grid points. momentum: decay of the target's average.

    Raises:
        ValueError: values out of range.

    Reference: Lei et al. (2025), arXiv 2501.13094, with the values of its released code.
    """

    target: ViTClassifier | None
    comparable = False  # the keys of a sample are those of its batch, over all processes

    def __init__(
        self,
        views: Augmentation,
        second_views: Augmentation | None = None,
        temperature: float = 0.2,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        resolution: Resolution | None = None,
        momentum: Momentum | None = None,
    ) -> None:
        super().__init__()
        checks.increasing(0, sigma_min=sigma_min, sigma_max=sigma_max)
        checks.positive(temperature=temperature, rho=rho)
        self.views, self.second_views = views, second_views
        self.temperature, self.rho = float(temperature), float(rho)
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self.resolution = Resolution() if resolution is None else resolution
        self.momentum = Momentum() if momentum is None else momentum
        self.target = None
        self.points, self.beta, self._due = self.resolution(0, 1), 1.0, False
        self._sums, self._count = torch.zeros(2), 0

    def begin(self, model: ViTClassifier) -> None:
        learns = {name: any(p.requires_grad for p in part.parameters()) for name, part in model.named_children()}
        if not learns.get("projector", True) or learns.get("head", False):
            raise ValueError(
                f"pre-training needs model.trainable=[encoder,projector], got "
                f"[{','.join(name for name, yes in learns.items() if yes)}]. A frozen projector would stay random, and "
                f"the head gets no gradient."
            )
        self.target = copy.deepcopy(model).requires_grad_(False)

    def at(self, step: int, steps: int) -> None:
        self.points = self.resolution(step, steps)
        self.beta, self._due = self.momentum(max(step - 1, 0), steps), step > 0

    def times(self) -> Tensor:
        r"""The grid t_0 = sigma_max > ... > t_(N-1) = sigma_min, float64. Reference: arXiv 2206.00364, equation 5."""
        fraction = torch.arange(self.points, dtype=torch.float64) / (self.points - 1)
        return karras(fraction, self.sigma_max, self.sigma_min, self.rho)

    def forward(
        self,
        model: ViTClassifier,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        target = self._averaged(model)
        views = [model.to_chart(draw(x_0, generator)) for draw in (self.views, self.second_views or self.views)]
        y, eps = model.to_chart(x_0), randn(x_0.shape, generator, x_0.dtype, x_0.device)
        t, below = self._pair(len(x_0), generator)
        views = [view + self.sigma_min * eps for view in views]
        # The calls with a gradient come first: autocast would otherwise reuse weights that it has cast without one.
        queries = [model.project(model.represent(view, self.sigma_min)) for view in views]
        upper = model.represent(y + t * eps, t)
        with torch.no_grad():
            lower = model.represent(y + below * self._lower_noise(eps), below)
            keys = [target.project(target.represent(view, self.sigma_min)) for view in views]
        contrast = info_nce(queries[0], keys[1], self.temperature) + info_nce(queries[1], keys[0], self.temperature)
        consistency = info_nce(upper, lower, self.temperature)
        self._log(contrast, consistency)
        return contrast + consistency

    def metrics(self) -> dict[str, float]:
        r"""Means of both terms since the last call over all processes, the number of points and the target's decay."""
        contrast, consistency, count = torch.tensor(gather([*self._sums.tolist(), self._count])).sum(0).tolist()
        self._sums, self._count = torch.zeros(2), 0
        means = {"contrast": contrast / count, "consistency": consistency / count} if count else {}
        return {**means, "points": self.points, "target_decay": self.beta}

    def _lower_noise(self, eps: Tensor) -> Tensor:
        r"""The noise of the lower point of the path, which is that of the upper one."""
        return eps

    def _pair(self, batch: int, generator: Generators) -> tuple[float, float]:
        r"""t_i, t_(i+1) of the batch: i is what its first sample draws, for all processes."""
        draw = gather(rand((batch,), generator, torch.float64, "cpu")[0].item())[0]
        i = int(draw * (self.points - 1))
        t = self.times()
        return t[i].item(), t[i + 1].item()

    @torch.no_grad()
    def _averaged(self, model: ViTClassifier) -> ViTClassifier:
        r"""The target, moved towards the network once a step; the network itself where no training has begun."""
        if self.target is None:
            return model
        if self._due:
            averages: list[Tensor] = list(self.target.parameters())
            weights = [p.detach() for p in model.parameters()]
            torch._foreach_lerp_(averages, weights, 1 - self.beta)
            self._due = False
        return self.target.train(model.training)

    def _log(self, contrast: Tensor, consistency: Tensor) -> None:
        if torch.is_grad_enabled():
            sums = torch.stack([contrast.detach().sum(), consistency.detach().sum()])
            self._sums = self._sums.to(sums) + sums
            self._count += len(contrast)


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    r"""The loss of finding each query's key among those of all samples of all processes.

        l_n = logsumexp_m(<q_n, k_m>/tau) - <q_n, k_n>/tau,   q and k normalised to length 1

    Args:
        queries, keys: (B, D), row n of both belongs to one sample. temperature: tau > 0.

    Returns:
        (B,) in float32 at least.

    Reference: van den Oord et al. (2018), arXiv 1807.03748, equation 4.
    """
    with torch.autocast(queries.device.type, enabled=False):  # bfloat16 would blur the differences of the logits
        dtype = torch.promote_types(queries.dtype, torch.float32)
        q, k = (nn.functional.normalize(v.to(dtype), dim=1) for v in (queries, keys))
        logits = q @ gather_rows(k).T / temperature
        own = rank() * len(q) + torch.arange(len(q), device=q.device)
        return nn.functional.cross_entropy(logits, own, reduction="none")
