r"""Despeckling of pictures with a checkpoint: what speckled intensities leave possible, tile by tile."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from scoregen.checks import at_least, positive
from scoregen.data.bounds import MOST_PIXELS
from scoregen.description import built_option
from scoregen.errors import UserError
from scoregen.jobs.conditioning import announced, find_checkpoint, image_shape
from scoregen.jobs.fast import FastJob
from scoregen.jobs.intensities import Intensities, open_intensities
from scoregen.jobs.job import Job, Plan, Weights, origin
from scoregen.samplers import Despeckler, Sampler, Tiled
from scoregen.whole import said


@dataclass(frozen=True, kw_only=True)
class Restore(FastJob):
    r"""Restores speckled intensity images; keys as in conf/restore.yaml.

    Args:
        checkpoint: a checkpoint, or a run folder (its last one). weights: "ema" or "model".
        images: a picture, a folder of them, or an .npz with `images`: intensities with speckle.
        looks: independent looks that were averaged, > 0; the speckle has variance 1/looks.
        samples: draws to average, by `sampler`; 0: the posterior mean of 1 + 2 probes calls.
        sampler: of the draws.
        probes: for the posterior variance of each pixel; 0: the geometric mean, one call.
        tile, overlap: of tiles and between them, in pixels; the model's side and a quarter of it unless given.
        floor: darker intensities, zeros too, are raised to it. scale: intensity that is 1 in the data's units.
        batch_size: tiles a process restores at once. max_pixels: that a picture may have. seed: of probes and draws.
    """

    known: ClassVar = ("images", "std", "parts", "restored.npz")
    free: ClassVar = (*Job.free, "max_pixels")
    checkpoint: str | None = None
    weights: Weights = "ema"
    images: str | None = None
    looks: float | None = None
    samples: int = 0
    sampler: Sampler = field(default_factory=built_option("sampler", "despeckle"))
    probes: int = 4
    tile: int | None = None
    overlap: int | None = None
    floor: float | None = None
    scale: float = 1.0
    batch_size: int = 64
    max_pixels: int = MOST_PIXELS
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, samples=self.samples, probes=self.probes)
        at_least(1, batch_size=self.batch_size, max_pixels=self.max_pixels)
        positive(scale=self.scale)
        if self.images is None:
            raise UserError("images: a value is required. Give a picture, a folder of them or an .npz with `images`.")
        if self.looks is None or not self.looks > 0:
            raise UserError(f"looks: must be > 0, the number of looks of the intensities, got {self.looks}.")
        if self.floor is not None:
            positive(floor=self.floor)
        if not self.samples:
            self.refuse_ignored({"sampler": "needs samples=1 or more, the draws that it makes"})

    def plan(self, out: Path) -> Plan:
        from scoregen import parallel

        images = open_intensities(str(self.images), self.max_pixels)
        checkpoint = find_checkpoint(self.checkpoint)
        shape = image_shape(checkpoint)
        despeckler = self._despeckler(self.loaded(checkpoint, self.weights), shape)
        self._check_images(images, despeckler)
        source = self._source(out)
        todo, damaged = _missing(images, out)

        def work() -> None:
            self._restore(despeckler, images, parallel.shard(todo), out)
            parallel.barrier()
            if parallel.rank() == 0:
                print(images.finish(out))

        lines = [announced(checkpoint, self.weights), *self._lines(despeckler)]
        lines += [f"images: {len(images)}, {len(images) - len(todo)} already there{said(damaged)}", f"out: {out}"]
        return Plan(work, lines, origin(checkpoint, self.weights) | {"images": str(source)})

    def _source(self, out: Path) -> Path:
        r"""The absolute path of the images; refuses results among them."""
        source = Path(str(self.images)).resolve()
        if out == source or source in out.parents:
            raise UserError(f"out: '{out}' lies in the folder to restore. Choose another out.")
        return source

    def _despeckler(self, model: Any, shape: tuple[int, ...]) -> Despeckler:
        r"""The checkpoint's denoiser on tiles of the size of its images, or of `tile`."""
        if len(shape) != 3:
            raise UserError(f"checkpoint: must be a denoiser of images, this one makes shape {shape}.")
        try:
            tiled = Tiled(model, self.tile or min(shape[1:]), self.overlap, self.batch_size, shape[0])
        except ValueError as error:
            raise UserError(f"tile: {error}") from error
        try:
            despeckler = Despeckler(tiled, float(self.looks or 0), self.sampler if self.samples else None)
            if self.samples > 1:
                despeckler.check_stochastic()
        except TypeError as error:
            raise UserError(f"checkpoint: {error}") from error
        except ValueError as error:
            raise UserError(f"{'sampler' if 'sampler' in str(error) else 'looks'}: {error}") from error
        return despeckler

    def _check_images(self, images: Intensities, despeckler: Any) -> None:
        r"""Reads every image once, so that one that cannot be restored is known before any work."""
        channels = despeckler.denoiser.denoiser.channels
        for k, name in enumerate(images.names):
            x = self._read(images, k)
            if channels not in (1, len(x)):
                raise UserError(f"images: '{name}' has {len(x)} channels, the model {channels}. Convert it.")
            try:
                despeckler.observe(x[None])
            except ValueError as error:
                raise UserError(f"images: '{name}': {error}") from error

    def _read(self, images: Intensities, k: int) -> Any:
        x = images.read(k) / self.scale
        return x if self.floor is None else x.clamp_min(self.floor / self.scale)

    def _lines(self, despeckler: Any) -> list[str]:
        tiled, s = despeckler.denoiser.denoiser, despeckler.s.item()
        name = type(despeckler.sampler).__name__
        if self.samples:
            what = f"mean of {self.samples} draws of {name}" if self.samples > 1 else f"one draw of {name}"
        else:
            what = f"posterior mean of {1 + 2 * self.probes} calls" if self.probes else "geometric mean of one call"
        return [
            f"speckle: {self.looks:g} looks, noise ratio {s:.4g}; tiles of {tiled.size}, overlap {tiled.overlap}",
            f"estimate: {what}",
        ]

    def _restore(self, despeckler: Any, images: Intensities, indices: list[int], out: Path) -> None:
        import torch

        from scoregen.interruption import check_folder, end_if_asked
        from scoregen.progress import progress
        from scoregen.rng import Stream, generators

        pixels = self.batch_size * despeckler.denoiser.denoiser.size**2
        with progress(total=len(indices), description="restoring", unit="image") as bar:
            for batch in _batches(images, indices, pixels):
                x = torch.stack([self._read(images, k) for k in batch])
                draws = generators(self.seed, Stream.RESTORE, 0, [images.key(k) for k in batch])
                mean, deviation = self._estimate(despeckler, x, draws)
                check_folder()
                for i, k in enumerate(batch):
                    spread = None if deviation is None else deviation[i] * self.scale
                    images.write(k, out, mean[i] * self.scale, spread)
                bar.update(len(batch))
                end_if_asked()

    def _estimate(self, despeckler: Despeckler, x: Any, draws: list[Any]) -> tuple[Any, Any]:
        r"""The estimate (B, C, H, W), and the standard deviation of its pixels or None."""
        if self.samples > 1:
            return despeckler.sample_mean(x, self.samples, draws)
        if self.samples == 1:
            return despeckler.sample(x, draws), None
        return despeckler.mean(x, self.probes, draws) if self.probes else (despeckler.log_mean(x), None)


def _missing(images: Intensities, out: Path) -> tuple[list[int], int]:
    r"""The images without a whole result, the same on all processes, and how many results are damaged."""
    from scoregen.parallel import gather, rank

    looked = range(len(images)) if rank() == 0 else ()
    missing = [k for k in looked if not images.is_whole(k, out)]
    found: tuple[list[int], int] = gather((missing, sum(images.place(k, out).exists() for k in missing)))[0]
    return found


def _batches(images: Intensities, indices: list[int], pixels: int) -> Iterator[list[int]]:
    r"""Batches of images of one shape in a row, with about `pixels` pixels each."""
    for shape, group in groupby(indices, key=images.shape):
        alike = list(group)
        size = max(1, pixels // (shape[1] * shape[2]))
        yield from (alike[i : i + size] for i in range(0, len(alike), size))
