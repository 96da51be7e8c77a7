r"""Grids of the same seeds in one call, two calls, ...: what a consistency model is trained for."""

from typing import Any

from scoregen.commands.hooks import SAMPLE_STREAM, cycled_labels
from scoregen.data import Source
from scoregen.parallel import rank
from scoregen.pictures import save_grid
from scoregen.rng import generators
from scoregen.samplers import Consistency, Levels
from scoregen.training import Hook, Moment


class FewCalls(Hook):
    r"""A grid of samples for each number of calls from 1 to 1 + the number of middle levels.

    Args:
        source: gives the shape. every: steps.
        levels: middle noise ratios, decreasing; the first call is at the start of the process.
        n: samples. seed: of the samples, as in the preview.
    """

    def __init__(
        self, source: Source, every: int, levels: tuple[float, ...] = (0.821,), n: int = 60, seed: int = 0
    ) -> None:
        super().__init__(every)
        if n < 1:
            raise ValueError(f"n must be >= 1, got n={n}.")
        Levels([float("1e9"), *levels])  # refuses levels that are not positive
        self.source, self.levels, self.n, self.seed = source, tuple(levels), n, seed

    def __call__(self, moment: Moment) -> None:
        if rank() != 0:
            return
        sde: Any = moment.model.sde
        label = cycled_labels(moment.model, self.n)
        for calls in range(1, len(self.levels) + 2):
            sampler = Consistency(calls, Levels([sde.s_max, *self.levels[: calls - 1]]))
            draws = generators(self.seed, SAMPLE_STREAM, 0, range(self.n))
            samples = sampler(moment.model, (self.n, *self.source.shape), label=label, generator=draws)
            path = moment.folder / "samples" / f"calls_{calls}_step_{moment.step:08d}.png"
            moment.picture(f"calls_{calls}", save_grid(samples, path, columns=10 if label is not None else None))
