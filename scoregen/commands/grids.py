r"""Samples of the same seeds in one call, two calls, ...: what a consistency model is trained for."""

from typing import Any

from scoregen.commands.hooks import SAMPLE_STREAM, cycled_labels
from scoregen.commands.monitors import Quality
from scoregen.data import Source
from scoregen.metrics import FeatureExtractor
from scoregen.parallel import rank
from scoregen.pictures import save_grid
from scoregen.rng import generators
from scoregen.samplers import Consistency, Levels, Sampler
from scoregen.sde import SDE
from scoregen.training import Hook, Moment


class FewCalls(Hook):
    r"""A grid of samples, and their Frechet distance, for each number of calls from 1 to 1 + the number of levels.

    Args:
        source: gives the shape, and its `train` part the reference. every: steps.
        levels: middle noise ratios, decreasing; the first call is at the start of the process.
        n: samples of a grid. seed: of the samples, as in the preview.
        features: what the distances compare; None for grids alone.
        samples: of the distances, >= 2.
    """

    def __init__(
        self,
        source: Source,
        every: int,
        levels: tuple[float, ...] = (0.821,),
        n: int = 60,
        seed: int = 0,
        features: FeatureExtractor | None = None,
        samples: int = 1000,
    ) -> None:
        super().__init__(every)
        if n < 1:
            raise ValueError(f"n must be >= 1, got n={n}.")
        Levels([float("1e9"), *levels])  # refuses levels that are not positive
        self.source, self.levels, self.n, self.seed = source, tuple(levels), n, seed
        first = Consistency(1)
        self.quality = None if features is None else Quality(source, first, features, every, samples, seed=seed)

    def samplers(self, sde: SDE) -> list[Sampler]:
        r"""What it samples with: one call, two calls, ..."""
        levels = [sde.s_max, *self.levels]
        return [Consistency(calls, Levels(levels[:calls])) for calls in range(1, len(levels) + 1)]

    def __call__(self, moment: Moment) -> None:
        model: Any = moment.model
        label, values = cycled_labels(model, self.n), {}
        for calls, sampler in enumerate(self.samplers(model.sde), start=1):
            if rank() == 0:
                draws = generators(self.seed, SAMPLE_STREAM, 0, range(self.n))
                samples = sampler(model, (self.n, *self.source.shape), label=label, generator=draws)
                path = moment.folder / "samples" / f"calls_{calls}_step_{moment.step:08d}.png"
                moment.picture(f"calls_{calls}", save_grid(samples, path, columns=10 if label is not None else None))
            if self.quality is not None:
                name = f"{self.quality.features.frechet_name}/calls_{calls}"
                values[name] = self.quality.distances(model, sampler)[0]
        if values:
            moment.log(values)
