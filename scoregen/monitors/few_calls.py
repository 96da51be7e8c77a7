r"""Samples of the same seeds at 1, 2, ... network calls."""

from typing import cast

from scoregen.checks import at_least
from scoregen.data import Source
from scoregen.metrics import FeatureExtractor
from scoregen.models import AbstractDenoiser
from scoregen.monitors.preview import cycled_labels
from scoregen.monitors.quality import Quality
from scoregen.parallel import rank
from scoregen.pictures import save_grid
from scoregen.rng import Stream, generators
from scoregen.samplers import Consistency, Levels, Sampler
from scoregen.sde import SDE
from scoregen.training import Hook, Moment


class FewCalls(Hook):
    r"""Sample grids and Frechet distance of a consistency model at 1, 2, ... network calls.

    Args:
        source: gives the shape, and the reference as for `Quality`.
        every: steps between them.
        levels: middle noise ratios, decreasing; the first call is at the start of the process.
        n: samples of a grid.
        seed: seed of the samples, as in the preview.
        features: what the distances compare; None for grids alone.
        samples: number of samples of the distances, >= 2.

    Raises:
        ValueError: values out of range.
    """

    def __init__(
        self,
        source: Source,
        every: int,
        *,
        levels: tuple[float, ...] = (0.821,),
        n: int = 60,
        seed: int = 0,
        features: FeatureExtractor | None = None,
        samples: int = 1000,
    ) -> None:
        super().__init__(every)
        at_least(1, n=n)
        Levels([1e9, *levels])  # refuses levels that are not positive
        self.source, self.levels, self.n, self.seed = source, tuple(levels), n, seed
        self.features, self.samples = features, samples
        self.quality = (
            None if features is None else Quality(source, Consistency(1), features, every, n=samples, seed=seed)
        )

    def samplers(self, sde: SDE) -> list[Sampler]:
        r"""What it samples with: one call, two calls, ..."""
        levels = [sde.s_max, *self.levels]
        return [Consistency(calls, Levels(levels[:calls])) for calls in range(1, len(levels) + 1)]

    def __call__(self, moment: Moment) -> None:
        values = {}
        for calls, sampler in enumerate(self.samplers(cast(AbstractDenoiser, moment.model).sde), start=1):
            if rank() == 0:
                self._grid(moment, calls, sampler)
            if self.quality is not None:
                name = f"{self.quality.features.frechet_name}/calls_{calls}"
                values[name] = self.quality.distances(moment.model, sampler)[0]
        if values:
            moment.log(values)

    def _grid(self, moment: Moment, calls: int, sampler: Sampler) -> None:
        label, denoiser = cycled_labels(moment.model, self.n), cast(AbstractDenoiser, moment.model)
        draws = generators(self.seed, Stream.PREVIEW, 0, range(self.n))
        samples = sampler(denoiser, (self.n, *self.source.shape), label=label, generator=draws)
        path = moment.folder / "samples" / f"calls_{calls}_step_{moment.step:08d}.png"
        moment.picture(
            f"calls_{calls}", save_grid(samples, path, 10 if label is not None else None, data_range=self.source.range)
        )
