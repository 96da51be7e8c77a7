r"""What a gallery shows of a trained denoiser: each function makes a section, or says why there is nothing to show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scoregen.config import build
from scoregen.data import Source
from scoregen.description import option
from scoregen.errors import UserError
from scoregen.jobs.gallery_page import Section, grid_png, labelled_png
from scoregen.pictures import Range, is_image
from scoregen.samplers import Sampler

SEEDS = 8  # of a row
MOST = 20_000  # training samples among which neighbours are looked for


@dataclass(frozen=True)
class Shown:
    r"""A run as the gallery sees it.

    Args:
        model: the denoiser. shape: of a sample. range: of its units. sampler: of the plain grids. seed: of the samples.
        n: samples of a grid, and of each distance. data: of the training, or None and `why` they are not known here.
    """

    model: Any
    shape: tuple[int, ...]
    range: Range | None
    sampler: Sampler
    seed: int
    n: int
    data: Source | None
    why: str = ""

    def draw(self, sampler: Sampler, n: int, **options: Any) -> Tensor:
        r"""The samples of the seeds 0, ..., n - 1, the classes in turn."""
        from scoregen.monitors.preview import cycled_labels
        from scoregen.rng import Stream, generators

        draws = generators(self.seed, Stream.SAMPLE, 0, list(range(n)))
        label = cycled_labels(self.model, n)
        x = sampler(self.model, (n, *self.shape), label=label, generator=draws, **options).cpu()
        if not bool(x.isfinite().all()):
            raise UserError(f"sampler: {said(sampler)} gives NaN or infinity. Choose another one, or more steps.")
        return x

    @property
    def images(self) -> bool:
        r"""Whether samples are pictures."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)


def said(sampler: Sampler) -> str:
    r"""A sampler in words."""
    steps = getattr(sampler, "steps", None)
    return type(sampler).__name__ + (f" with {steps} steps" if steps else "")


def in_words(name: str) -> str:
    r"""An option of the group sampler in words."""
    known = {"heun": "Heun", "ddim": "DDIM", "abm": "ABM", "ab": "AB"}
    return " ".join(known.get(part, part) for part in name.split("_"))


def in_calls(count: int) -> str:
    r"""A number of network calls in words."""
    return f"{count} call" if count == 1 else f"{count} calls"


def uncurated(run: Shown) -> Section:
    x = run.draw(run.sampler, run.n)
    columns = 10 if getattr(run.model, "num_classes", None) else None
    classes = "; classes in turn, left to right" if columns else ""
    figures = [(grid_png(x, run.range, columns), f"the first {run.n} samples, by {said(run.sampler)}{classes}")]
    if run.data is not None:
        part = run.data.part("test") or run.data.part("validation") or run.data.train
        figures.append((grid_png(part.in_units(slice(run.n))[0], run.range, columns), "real data, as they come"))
    return Section("Samples, none left out", "Samples of consecutive seeds. None was chosen.", figures)


def trajectories(run: Shown) -> Section:
    from scoregen.monitors.preview import trajectory

    heading = "From noise to data"
    if not run.images:
        return Section(heading, f"The samples have shape {run.shape}. Trajectories are shown for grey and RGB images.")
    frames: list[Tensor] = []
    levels: list[float] = []

    def keep(step: int, s: float, u: Tensor, denoised: Tensor) -> None:
        frames.append(u[:SEEDS].detach().cpu())
        levels.append(s)

    run.draw(run.sampler, SEEDS, callback=keep)
    if not frames or not is_image(frames[0]):
        return Section(heading, "The state of this process is no image, so that its path is not shown.")
    strip = trajectory(run.model.sde, frames)
    count = len(strip) // SEEDS
    kept = [levels[round(i * (len(levels) - 1) / (count - 1))] for i in range(count)]
    rows = [strip[i * count : (i + 1) * count] for i in range(4)]
    png = labelled_png([f"seed {i}" for i in range(4)], [f"s = {s:.2g}" for s in kept], rows, run.range)
    return Section(heading, "The state along the path. s is the ratio of noise to data.", [(png, said(run.sampler))])


def plans(name: str, calls: list[int], run: Shown) -> list[tuple[int, Sampler]]:
    r"""(network calls, sampler) for each number of calls that a sampler can make."""
    from scoregen.jobs.sweep import plans_of

    return [(used, build(node, where=f"sampler {name}")) for node, _, used in plans_of(name, calls, run.model.sde)]


def by_calls(run: Shown, names: Sequence[str], calls: list[int], features: Any, out: Path) -> list[Section]:
    r"""The same seeds over samplers and calls, and the Frechet distance of these samples."""
    from scoregen.metrics.sweep import save_figure

    rows, points, left = [], [], []
    for name in names:
        try:
            found = plans(name, calls, run)
            made = [(used, sampler, run.draw(sampler, run.n)) for used, sampler in found]
        except (UserError, ValueError, TypeError) as error:
            left.append(f"{name}: {error}")
            continue
        for used, sampler, x in made:
            rows.append((f"{in_words(name)}, {in_calls(used)}", x))
            if features is not None:
                points.append(_point(in_words(name), used, sampler, x, run, features))
    missing = " " + " ".join(f"Left out: {text}" for text in left) if left else ""
    seeds = _rows("The same seeds over samplers and network calls", rows, run, "Each column starts from one noise.")
    seeds = Section(seeds.heading, seeds.text + missing, seeds.figures)
    if not points:
        return [seeds, Section("Quality against calls", _no_distance(run))]
    png = save_figure(points, out / "quality.png").read_bytes()
    text = (
        f"Frechet distance of {run.n} samples to the training data, in the features '{features.extractor.name}'. "
        "So few samples bias it upward: compare the curves with each other and with the floor."
    )
    return [seeds, Section("Quality against calls", text, [(png, "lower is better; bands: 95 % bootstrap")])]


def _no_distance(run: Shown) -> str:
    if run.data is None:
        return f"Nothing is measured: {run.why}"
    return "No sampler could be measured."


@dataclass(frozen=True)
class Features:
    r"""What distances are taken in: the extractor, and the features of training and held-out data."""

    extractor: Any
    training: Tensor
    held_out: Tensor | None


def features_of(run: Shown) -> Features | None:
    r"""Features of an untrained network for images, the numbers themselves for vectors."""
    from scoregen.metrics import Pixels, RandomConvolution, extract_features
    from scoregen.metrics.extraction import Measured

    if run.data is None:
        return None
    extractor = RandomConvolution(run.shape[0]) if run.images else Pixels()
    parts = [run.data.part("train") or run.data.test, run.data.part("test")]
    known = [None if x is None else extract_features(extractor, Measured(first(x), run.range, False)) for x in parts]
    assert known[0] is not None
    return Features(extractor, known[0], known[1])


def first(part: Any, most: int = MOST) -> Tensor:
    r"""The first samples of a part, in their units."""
    x: Tensor = part.in_units(slice(min(len(part), most)))[0]
    return x


def _point(name: str, calls: int, sampler: Sampler, x: Tensor, run: Shown, features: Features) -> Any:
    from scoregen.metrics import Number, extract_features, frechet_distance, frechet_interval
    from scoregen.metrics.extraction import Measured
    from scoregen.metrics.sweep import Point

    found = extract_features(features.extractor, Measured(x, run.range, False))
    interval = frechet_interval(found, features.training, 50, seed=0)
    held = None if features.held_out is None else features.held_out[: len(x)]
    floor = None if held is None or len(held) < 3 else frechet_distance(held, features.training)
    frechet = Number(features.extractor.frechet_name, interval.value, "lower", floor, interval.low, interval.high)
    return Point(name, sampler.steps, calls, frechet)


def _rows(heading: str, rows: list[tuple[str, Tensor]], run: Shown, text: str) -> Section:
    if not rows:
        return Section(heading, "No sampler fits this model.")
    if not run.images:
        figures = [(grid_png(x, run.range), name) for name, x in rows]
        return Section(heading, text, figures)
    count = min(SEEDS, run.n)
    png = labelled_png(
        [name for name, _ in rows], [f"seed {i}" for i in range(count)], [x[:count] for _, x in rows],
        run.range,
    )  # fmt: skip
    return Section(heading, text, [(png, "rows: sampler and network calls")])


def few_calls(run: Shown) -> Section:
    r"""1, 2, 4 and 35 calls."""
    from scoregen.samplers import Consistency

    heading = "One, two, four and thirty-five calls"
    if getattr(run.model, "is_consistency", False):
        rows = [(in_calls(calls), run.draw(Consistency(calls), SEEDS)) for calls in (1, 2, 4, 35)]
        return _rows(heading, rows, run, "A consistency model makes an image in one call; each call after it refines.")
    name = "flow_map" if getattr(run.model, "takes_next", False) else "velocity_abm"
    try:
        rows = [(in_calls(calls), run.draw(sampler, SEEDS)) for calls, sampler in plans(name, [1, 2, 4, 35], run)]
    except (UserError, ValueError, TypeError) as error:
        return Section(heading, f"{name} does not fit this model: {error}")
    trained = "" if name == "flow_map" else " It was not trained for few calls; docs/consistency.md says how to."
    return _rows(heading, rows, run, f"By {option('sampler', name)['_target_'].rpartition('.')[2]}.{trained}")


def beside(run: Shown, other: Shown | None) -> Section:
    r"""The same seeds by two runs, each named by its process."""
    heading = "Additive beside multiplicative"
    if other is None:
        kind = process_of(run)
        missing = "a multiplicative" if kind == "additive" else "an additive"
        return Section(heading, f"This process is {kind}. Give beside=RUN, {missing} one, to see both.")
    figures = []
    for one in (run, other):
        caption = f"{process_of(one)}, {type(one.model.sde).__name__}, by {said(one.sampler)}"
        columns = 10 if getattr(one.model, "num_classes", None) else None
        figures.append((grid_png(one.draw(one.sampler, one.n), one.range, columns), caption))
    same = process_of(run) == process_of(other)
    text = f"Both processes are {process_of(run)}." if same else "One process adds noise, the other multiplies by it."
    return Section(heading if not same else "Two runs side by side", f"{text} The seeds are the same.", figures)


def process_of(run: Shown) -> str:
    r"""Whether the noise of a run is added to data or multiplies them."""
    return "additive" if run.model.sde.chart.as_log() is None else "multiplicative"


def interpolation(run: Shown) -> Section:
    from scoregen.metrics.smoothness import path_images
    from scoregen.rng import Stream, generators, randn
    from scoregen.samplers import slerp
    from scoregen.samplers.from_noise import FromNoise
    from scoregen.samplers.start import state_options

    heading = "Interpolation"
    if not run.images:
        return Section(
            heading, f"The samples have shape {run.shape}. Interpolations are shown for grey and RGB images."
        )
    classes = getattr(run.model, "num_classes", None)
    labels: list[int | None] = list(range(min(4, classes))) if classes else [None]
    latent, options = run.model.sde.chart.shape_of(run.shape), state_options(run.model)
    a, b = (randn((1, *latent), generators(run.seed, Stream.SAMPLE, 0, [k]), **options) for k in (0, 1))
    try:
        rows = [path_images(FromNoise(run.model, run.sampler, k), a, b, 9, slerp)[:, 0].cpu() for k in labels]
    except (ValueError, TypeError) as error:
        return Section(heading, f"{said(run.sampler)} gives no path between two noises: {error}")
    names = ["no label" if k is None else f"class {k}" for k in labels]
    png = labelled_png(names, [f"{i / 8:.0%}" for i in range(9)], rows, run.range)
    return Section(heading, "Between the noises of seed 0 and seed 1, along the sphere.", [(png, said(run.sampler))])
