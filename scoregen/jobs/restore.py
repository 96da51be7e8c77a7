r"""Despeckling of images with a checkpoint: what speckled intensities leave possible, a band of tiles at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from scoregen.checks import at_least
from scoregen.config import Node
from scoregen.data.bounds import MOST_PIXELS
from scoregen.data.layout import Layout
from scoregen.description import built_option, root_node
from scoregen.errors import UserError
from scoregen.jobs.brightness import Brightness, clean_of, first_only, looked
from scoregen.jobs.calls import check_sampler
from scoregen.jobs.conditioning import announced, find_checkpoint, image_shape
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Job, Plan, Weights, origin
from scoregen.jobs.observation import chain, check_observation, check_recorded, law_of, noise_ratio, of_counts
from scoregen.models.protocol import check_mean
from scoregen.samplers import Despeckler, Quantised, Sampler, SplitGibbs, Tiled
from scoregen.samplers.despeckle import OnIntensity
from scoregen.sde.multiplicative import logarithm
from scoregen.whole import said

if TYPE_CHECKING:
    from scoregen.restoration import Band, Restored, Restorer, Results, Scene


@dataclass(frozen=True, kw_only=True)
class Restore(FastJob):
    r"""Restores images with speckle; keys as in conf/restore.yaml.

    Args:
        checkpoint: a checkpoint, or a run folder (its last one). weights: "ema", "model" or "ema:LENGTH".
        images: a picture, a TIFF, .npy or .npz file, or a folder of them.
        unit: of the values in the files: "intensity", "amplitude" or "db".
        scale: value in the files that is 1 in the units of the training data; "auto": from quantiles. None: for
            integers full scale, else these units.
        nodata: value that means "no data", besides NaN and what a file says.
        floor: value to which darker ones, zeros too, are raised; None: zeros are refused.
        looks: independent looks that were averaged, > 0; the speckle has variance 1/looks. "estimate": from
            homogeneous windows.
        samples: draws to average, by `sampler`; 0: the posterior mean of 1 + 2 probes calls.
        sampler: of the draws.
        observation: law of what was recorded, `GammaObservation`, `Quantised` or `PoissonObservation`, by which draws
            are exact, in the numbers of the files; None: log speckle is taken for normal noise. gibbs: the chain that
            then makes the draws. Counts have no looks, and any model of pixels restores them.
        clean: the images without noise, a file or a folder of the same names, for PSNR and SSIM; None: there are none.
        probes: for the posterior variance of each pixel; 0: the geometric mean, one call.
        tile, overlap: of tiles and between them, in pixels; the model's side and a quarter of it unless given.
        layout: where the channels of arrays are; None where the shape tells.
        batch_size: tiles a process restores at once. max_pixels: of what is in memory as a whole: pictures, and images
            that are drawn. seed: of probes and draws.
    """

    known: ClassVar = ("images", "std", "parts", "restored.npz", "measures.json", "report.html", "altered")
    free: ClassVar = (*Job.free, "max_pixels", "clean")
    checkpoint: str | None = None
    weights: Weights = "ema"
    images: str | None = None
    clean: str | None = None
    unit: Literal["intensity", "amplitude", "db"] = "intensity"
    scale: float | Literal["auto"] | None = None
    nodata: float | None = None
    floor: float | None = None
    looks: float | Literal["estimate"] | None = None
    samples: int = 0
    sampler: Sampler = field(default_factory=built_option("sampler", "despeckle"))
    observation: Node | None = None
    gibbs: Node = field(default_factory=root_node("restore", "gibbs"))
    probes: int = 4
    tile: int | None = None
    overlap: int | None = None
    layout: Layout | None = None
    batch_size: int = 64
    max_pixels: int = MOST_PIXELS
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, samples=self.samples, probes=self.probes)
        at_least(1, batch_size=self.batch_size, max_pixels=self.max_pixels)
        if self.images is None:
            raise UserError("images: a value is required. Give a picture, a TIFF, .npy or .npz file, or a folder.")
        unknown = self.looks is None and not of_counts(self)
        if unknown or (self.looks not in (None, "estimate") and not float(self.looks or 0) > 0):
            raise UserError(
                f"looks: must be > 0, the number of looks of the images, got {self.looks}. Give it, or looks=estimate."
            )
        if not self.samples:
            self.refuse_ignored({"sampler": "needs samples=1 or more, the draws that it makes"})
        else:
            self.refuse_ignored({"probes": "is of the posterior mean, which samples=0 gives"})
        check_observation(self)

    def plan(self, out: Path) -> Plan:
        from scoregen import parallel
        from scoregen.restoration import Estimate, Reading, Restorer, Results, Speckle, open_scenes
        from scoregen.restoration.opening import changes
        from scoregen.restoration.page import write_review
        from scoregen.restoration.review import Review

        source = self._source(out)
        scenes = open_scenes(str(self.images), self.max_pixels, self.layout)
        checkpoint = find_checkpoint(self.checkpoint)
        tiled = self._tiled(self.loaded(checkpoint, self.weights), image_shape(checkpoint))
        self._check_scenes(scenes, tiled)
        offset = 0.0 if of_counts(self) else logarithm(tiled.sde, "despeckling", "").offset
        span = getattr(tiled.sde, "data_range", None)
        found, reading = looked(self, scenes, checkpoint, offset, span), Reading(self.nodata)
        clean = clean_of(self, scenes, found, checkpoint)
        law = law_of(self, scenes, found.noise)
        gibbs = chain(self, tiled, law, found.units[0][0])
        if law is not None:
            first_only(lambda: check_recorded(scenes, found.units, reading, law))
        looks = found.noise.looks if isinstance(found.noise, Speckle) else None
        told = self._lines(tiled, found, gibbs)
        if isinstance(law, Quantised):
            told.append(f"observation: steps of {law.step:g} from {law.low:g} to {law.high:g}, in the files")
        sampler = self.sampler if self.samples else None
        estimate = Estimate(looks, self.samples, sampler, self.probes, self.seed, gibbs)
        restorer = Restorer(scenes, found.units, reading, tiled, estimate, None if gibbs else found.rest)
        results = Results(scenes, self._bands(scenes, tiled), out)
        todo = parallel.gather(results.missing() if parallel.rank() == 0 else None)[0]
        assert todo is not None
        facts = origin(checkpoint, self.weights) | {"images": str(source)} | found.facts

        def work() -> None:
            self._restore(restorer, results, [todo.bands[i] for i in parallel.shard(range(len(todo.bands)))])
            parallel.barrier()
            places = [results.finish(k) for k in parallel.shard(range(len(scenes)))]
            parallel.barrier()
            if parallel.rank() == 0:
                review = Review(scenes, found.units, reading, found.noise, out, layout=self.layout, clean=clean)
                shown = {**asdict(found.noise), "unit": self.unit, **facts, "clean": self.clean}
                print(*write_review(review, shown, results.altered()), sep="\n")
                print(places[0] if len(scenes) == 1 else out)

        planes = sum(len(scene.planes) for scene in scenes)
        lines = [announced(checkpoint, self.weights), *found.lines, *told, *changes(scenes)]
        lines += [f"images: {planes}, {todo.planes} already there{said(todo.damaged)}", f"out: {out}"]
        return Plan(work, lines, facts)

    def _source(self, out: Path) -> Path:
        r"""The absolute path of the images; refuses results among them."""
        source = Path(str(self.images)).resolve()
        if out == source or source in out.parents:
            raise UserError(f"out: '{out}' lies in the folder to restore. Choose another out.")
        return source

    def _tiled(self, model: Any, shape: tuple[int, ...]) -> Tiled:
        r"""The checkpoint's denoiser on tiles of the size of its images, or of `tile`."""
        if len(shape) != 3:
            raise UserError(f"checkpoint: must be a denoiser of images, this one makes shape {shape}.")
        try:
            tiled = Tiled(model, self.tile or min(shape[1:]), self.overlap, self.batch_size, shape[0])
        except ValueError as error:
            raise UserError(f"tile: {error}") from error
        if not of_counts(self):
            try:
                OnIntensity(tiled)
            except TypeError as error:
                raise UserError(f"checkpoint: {error}") from error
        return tiled

    def _despeckler(self, tiled: Tiled, looks: float) -> Despeckler:
        r"""The despeckler, if it can do what is asked for."""
        with _refused("looks"):
            despeckler = Despeckler(tiled, looks, self.sampler if self.samples else None)
        if self.samples:
            with _refused("samples"):
                despeckler.check_levels()
            check_sampler(despeckler.sampler, tiled)
        else:
            with _refused("checkpoint"):
                check_mean(tiled)
        if self.samples > 1:
            with _refused("sampler"):
                despeckler.check_stochastic()
        return despeckler

    def _check_scenes(self, scenes: "Sequence[Scene]", tiled: Tiled) -> None:
        r"""Refuses images of other channels, and those that are too large to be drawn."""
        for scene in scenes:
            for plane in scene.planes:
                if tiled.channels not in (1, plane.channels):
                    raise UserError(
                        f"images: '{scene.name}' has {plane.channels} channels, the model {tiled.channels}. Convert it."
                    )
                if self.samples and plane.height * plane.width > self.max_pixels:
                    raise UserError(
                        f"samples: draws keep the whole image in memory, and '{scene.name}' has {plane.width} x "
                        f"{plane.height} pixels, more than {self.max_pixels}. Leave samples out for the posterior "
                        "mean, or raise max_pixels."
                    )

    def _bands(self, scenes: "Sequence[Scene]", tiled: Tiled) -> "list[list[Band]]":
        r"""The bands of each scene; draws, whose noise is that of the whole image, have one an image."""
        from scoregen.restoration.bands import Band, rows_of_bands

        found = []
        for i, scene in enumerate(scenes):
            rows = [
                [(0, plane.height)] if self.samples else rows_of_bands(plane, tiled.size, tiled.overlap)
                for plane in scene.planes
            ]
            found.append([Band(i, k, first, last) for k, some in enumerate(rows) for first, last in some])
        return found

    def _lines(self, tiled: Tiled, found: Brightness, gibbs: SplitGibbs | None) -> list[str]:
        r"""The noise and the estimate, as they are printed; refuses looks that the model cannot remove."""
        from scoregen.restoration import Counts, Speckle

        tiles = f"tiles of {tiled.size}, overlap {tiled.overlap}"
        name = type(self.sampler).__name__
        if isinstance(found.noise, Speckle):
            despeckler = self._despeckler(tiled, found.noise.looks)
            ratio, name = despeckler.s.item(), type(despeckler.sampler).__name__
            lines = [f"speckle: {despeckler.looks:.4g} looks, noise ratio {ratio:.4g}; {tiles}"]
        elif isinstance(found.noise, Counts):
            counts = found.middle * found.units[0][0].scale / found.noise.gain
            ratio = noise_ratio(tiled.sde, found.middle, counts)
            lines = [f"counts: median {counts:.4g}, noise ratio there {ratio:.4g}; {tiles}"]
        if gibbs is not None:
            calls = gibbs.rounds * gibbs.sampler.steps
            name = f"SplitGibbs with {type(gibbs.observation).__name__}, {calls} steps each"
            if gibbs.rho_min > 0.21 * ratio:
                lines.append(
                    f"gibbs: rho_min={gibbs.rho_min:g} is more than a fifth of the noise ratio, and adds to it. "
                    f"gibbs.rho_min={ratio / 5:.2g} is exacter, with more gibbs.rounds"
                )
        if self.samples:
            what = f"mean of {self.samples} draws of {name}" if self.samples > 1 else f"one draw of {name}"
        else:
            what = f"posterior mean of {1 + 2 * self.probes} calls" if self.probes else "geometric mean of one call"
        return [*lines, f"estimate: {what}"]

    def _restore(self, restorer: "Restorer", results: "Results", bands: "list[Band]") -> None:
        from scoregen.interruption import check_folder, end_if_asked
        from scoregen.progress import progress

        with progress(total=len(bands), description="restoring", unit="band") as bar:
            for batch in restorer.batches(bands, self.batch_size * restorer.denoiser.size**2):
                restored = restorer(batch)
                check_folder()
                for one in restored:
                    self._put(one, results)
                bar.update(len(batch))
                end_if_asked()

    def _put(self, restored: "Restored", results: "Results") -> None:
        r"""Writes a restored band."""
        results.put(restored.band, restored.values, restored.deviation, restored.altered)


@contextmanager
def _refused(key: str) -> Iterator[None]:
    r"""A refusal of the sampler's as that of a key."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{key}: {error}") from error
