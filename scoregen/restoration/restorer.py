r"""Restores bands of scenes: values of a file to intensities, through the despeckler, and back.

Random signs are a function of (seed, file, page, row), so that a band has those of its rows in whatever bands the
image is cut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from scoregen.errors import UserError
from scoregen.keys import Keys, derive_seed
from scoregen.models.protocol import DenoiserLike
from scoregen.restoration.altered import Altered
from scoregen.restoration.bands import Band
from scoregen.restoration.nodata import filled, reach
from scoregen.restoration.scenes import Scene
from scoregen.restoration.survey import Reading
from scoregen.restoration.units import Units, stored
from scoregen.rng import Stream, generator
from scoregen.samplers.base import Sampler
from scoregen.samplers.despeckle import Despeckler, OnIntensity
from scoregen.samplers.pixel_observation import PoissonObservation
from scoregen.samplers.split_gibbs import SplitGibbs
from scoregen.samplers.tiles import Tiled


@dataclass(frozen=True)
class Restored:
    r"""A restored band.

    Args:
        band: the rows. values: (C, rows, W) as in the file. deviation: of the values, NaN without data, or None.
        altered: counts of values that no count, or no file, can have.
    """

    band: Band
    values: np.ndarray
    deviation: np.ndarray | None
    altered: Altered


@dataclass(frozen=True)
class Estimated:
    r"""An estimate of intensities, all (B, C, H, W).

    Args:
        mean: it. deviation: of its pixels, or None. lowest: the lowest of its draws, before any was raised; None where
            none is.
    """

    mean: Tensor
    deviation: Tensor | None = None
    lowest: Tensor | None = None

    def image(self, number: int, rows: slice) -> "Estimated":
        r"""Rows of one image, (C, rows, W), in float32 on the CPU."""
        parts = (self.mean, self.deviation, self.lowest)
        mean, *rest = (None if part is None else part[number, :, rows].float().cpu() for part in parts)
        assert mean is not None
        return Estimated(mean, *rest)


@dataclass(frozen=True)
class Estimate:
    r"""Which estimate of the intensity is made.

    Args:
        looks: of the speckle; None of counts. samples: draws that are averaged, by the sampler; 0: the posterior mean.
        sampler: of the draws. probes: of the posterior variance; 0: the geometric mean of one call. seed: of all.
        gibbs: makes the draws in place of the sampler, by the exact law of what was recorded; None where it does not.
    """

    looks: float | None
    samples: int = 0
    sampler: Sampler | None = None
    probes: int = 4
    seed: int = 0
    gibbs: SplitGibbs | None = None

    def __call__(self, denoiser: Tiled, x: Tensor, keys: Sequence[tuple[int, int]], low: int) -> Estimated:
        r"""The estimate.

        Args:
            denoiser: on tiles. x: intensities. keys: of each image. low: its first row.
        """
        draws = [generator(self.seed, Stream.RESTORE, *key) for key in keys]
        if self.gibbs is not None:
            return self._exact(self.gibbs, on_observed(self.gibbs, denoiser), x, draws)
        assert self.looks is not None  # those of speckle are known
        despeckler = Despeckler(denoiser, self.looks, self.sampler)
        if self.samples:
            if self.samples == 1:
                return Estimated(despeckler.sample(x, draws))
            return Estimated(*despeckler.sample_mean(x, self.samples, draws))
        if not self.probes:
            return Estimated(despeckler.log_mean(x))
        return Estimated(*despeckler.mean(x, self.probes, RowSigns(self.seed, keys, low)))

    def _exact(self, gibbs: SplitGibbs, denoiser: DenoiserLike, x: Tensor, draws: list[torch.Generator]) -> Estimated:
        ends = Lowest(gibbs.rounds, denoiser)
        try:
            if self.samples == 1:
                mean, deviation = gibbs(denoiser, x, generator=draws, callback=ends), None
            else:
                mean, deviation = gibbs.mean(denoiser, x, self.samples, generator=draws, callback=ends)
        except ValueError as error:
            raise UserError(f"observation: {error}") from error
        return Estimated(mean, deviation, ends.lowest)


class Lowest:
    r"""The lowest of the draws of a chain, each before it is moved to what the observation leaves possible.

    Args:
        rounds: of the chain. denoiser: that it draws with.
    """

    def __init__(self, rounds: int, denoiser: DenoiserLike) -> None:
        self._rounds, self._denoiser = rounds, denoiser
        self.lowest: Tensor | None = None

    def __call__(self, number: int, rho: float, y: Tensor, z: Tensor) -> None:
        if number == self._rounds - 1:
            x = self._denoiser.sde.from_chart(y)
            self.lowest = x if self.lowest is None else torch.minimum(self.lowest, x)


def on_observed(gibbs: SplitGibbs, denoiser: Tiled) -> DenoiserLike:
    r"""The denoiser of what a chain observes: counts are of the data x, speckle multiplies X = x + offset."""
    return denoiser if isinstance(gibbs.observation, PoissonObservation) else OnIntensity(denoiser)


class RowSigns:
    r"""Random signs of the rows of images, each a function of (seed, image, row, number of the draw).

    Args:
        seed: seed of all. keys: of each image. first: number of the first row.
    """

    def __init__(self, seed: int, keys: Sequence[tuple[int, int]], first: int) -> None:
        self._steps, self._seed, self._first, self._draw = [derive_seed(*key) for key in keys], seed, first, 0

    def __call__(self, u: Tensor) -> Tensor:
        images, channels, height, width = u.shape
        rows = range(self._first, self._first + height)
        signs = torch.empty_like(u)
        for k in range(images):
            keys = Keys(derive_seed(self._seed, self._draw), Stream.RESTORE, self._steps[k], rows)
            uniform = keys.rand((height, channels, width), torch.float32, u.device)
            signs[k] = torch.where(uniform < 0.5, 1, -1).transpose(0, 1)
        self._draw += 1
        return signs


class Restorer:
    r"""Restores bands of scenes.

    Args:
        scenes: the scenes. units: those of the planes of each scene. reading: how their values are read.
        denoiser: on tiles. estimate: that is made.
        rest: intensity that stands for pixels without data far from valid ones; None where there are none.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        units: Sequence[Sequence[Units]],
        reading: Reading,
        denoiser: Tiled,
        estimate: Estimate,
        rest: float | None,
    ) -> None:
        self.scenes, self.units, self.reading = scenes, units, reading
        self.denoiser, self.estimate, self.rest = denoiser, estimate, rest

    def batches(self, bands: Sequence[Band], pixels: int) -> Iterator[list[Band]]:
        r"""Bands that are restored at once: whole images of one shape in a row, about `pixels` each; else one."""
        for (shape, alone), group in groupby(bands, key=self._kind):
            alike = list(group)
            size = 1 if alone else max(1, pixels // (shape[1] * shape[2]))
            yield from (alike[i : i + size] for i in range(0, len(alike), size))

    def _kind(self, band: Band) -> tuple[tuple[int, int, int], bool]:
        plane = self.scenes[band.scene].planes[band.plane]
        return plane.shape, (band.first, band.last) != (0, plane.height)

    def __call__(self, batch: Sequence[Band]) -> list[Restored]:
        r"""The bands of a batch, restored."""
        band = batch[0]
        plane = self.scenes[band.scene].planes[band.plane]
        denoiser, low, high = self.denoiser.cut(plane.height, band.first, band.last)
        read = [self._read(one, low, high) for one in batch]
        x = torch.from_numpy(np.stack([intensity for _, _, intensity in read]).astype(np.float32))
        if self.estimate.gibbs is not None:
            x[torch.from_numpy(np.stack([missing for _, missing, _ in read]))] = torch.nan
        keys = [self.scenes[one.scene].key(one.plane) for one in batch]
        found = self.estimate(denoiser, x, keys, low)
        rows = slice(band.first - low, band.last - low)
        restored = []
        for i, one in enumerate(batch):
            values, missing, _ = (part[:, rows] for part in read[i])
            restored.append(self._back(one, values, missing, found.image(i, rows)))
        return restored

    def _read(self, band: Band, low: int, high: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Rows low .. high - 1: the values of the file, where they are missing, and intensities for the despeckler."""
        scene, units = self.scenes[band.scene], self.units[band.scene][band.plane]
        plane = scene.planes[band.plane]
        side = 1 if self.rest is None else reach(self.denoiser.size)
        first, last = low - low % side, min(plane.height, high + -high % side)
        values = scene.read(band.plane, first, last)
        missing = self.reading.missing(values, plane)
        x = units.raised(units.training(np.where(missing, values.dtype.type(1), values)))
        if missing.any() and self.rest is not None:
            x = np.where(missing, np.exp(filled(np.log(x), ~missing, side, float(np.log(self.rest)))), x)
        rows = slice(low - first, high - first)
        return values[:, rows], missing[:, rows], x[:, rows]

    def _back(self, band: Band, values: np.ndarray, missing: np.ndarray, found: Estimated) -> Restored:
        r"""Restored intensities in the values of their file; what was missing is given back as it was."""
        plane = self.scenes[band.scene].planes[band.plane]
        units = self.units[band.scene][band.plane]
        lowest = (found.mean if found.lowest is None else found.lowest).numpy()
        below = (lowest < 0) & ~missing
        mean = found.mean.clamp_min(0).numpy()
        marks = [mark for mark in (plane.nodata, self.reading.nodata) if mark is not None]
        result, cut = stored(units.file(mean), np.where(missing, values.dtype.type(1), values), marks)
        deviation = None
        if found.deviation is not None:
            deviation = np.where(missing, np.float32(np.nan), units.deviation(mean, found.deviation.numpy()))
        altered = Altered(int(below.sum()), float(lowest[below].min(initial=0)) * units.scale, int(cut[~missing].sum()))
        return Restored(band, np.where(missing, values, result), deviation, altered)
