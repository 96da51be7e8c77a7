r"""Interpolations between two seeds, or between two images.

Two seeds: the path between the noises from which `sample` of these seeds makes its first image, by `sampler`. Two
images: both are encoded by the probability flow (Runge-Kutta, whatever the sampler), their latents blended, the blends
decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from scoregen.checks import at_least, inside
from scoregen.config import typed
from scoregen.description import built_option
from scoregen.errors import UserError, absent
from scoregen.jobs.conditioning import (
    Label,
    announced,
    find_checkpoint,
    guided,
    image_shape,
    known_of,
    labels_of,
    told_unlabelled,
)
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Plan, Weights, origin
from scoregen.samplers import Sampler, slerp, variance_preserving
from scoregen.storage import write_atomically

_BLENDS = {"slerp": slerp, "linear": variance_preserving}


@dataclass(frozen=True, kw_only=True)
class Interpolate(FastJob):
    r"""Writes strip.png, path.gif and frames.npz: a row for each label; keys as in conf/interpolate.yaml.

    Args:
        checkpoint: a checkpoint, or a run folder (its last one). weights: "ema", "model" or "ema:LENGTH".
        between: two seeds, or two files of images.
        sampler: makes the images of a path between seeds; must be deterministic.
        frames: images of the path, ends included, >= 2.
        blend: "slerp" (along the sphere) or "linear" (variance-preserving).
        constant_speed: weights at which the images change evenly, instead of equidistant ones; for seeds.
        duration: duration of a frame of the GIF, seconds, .01 to 600.
        label: None, one label, a list or "all": a row for each. guidance: scale; 1 is none.
        null_label: as in the job sample.
        seed: seed of the labels with label=random.
    """

    known: ClassVar = ("strip.png", "path.gif", "frames.npz", "images", "parts")
    checkpoint: str | None = None
    weights: Weights = "ema"
    between: list[int] | list[str] | None = None
    sampler: Sampler = field(default_factory=built_option("sampler", "velocity_abm"))
    frames: int = 11
    blend: Literal["slerp", "linear"] = "slerp"
    constant_speed: bool = False
    duration: float = 0.12
    label: Label = None
    guidance: float = 1.0
    null_label: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, frames=self.frames)
        inside(0.01, 600, duration=self.duration)  # a GIF counts hundredths of a second, in 16 bits
        ends = self.between
        if ends is None or len(ends) != 2 or len({type(end) for end in ends}) != 1:
            raise UserError(f"between: must be two seeds [0,1] or two images [a.png,b.png], got {ends!r}.")
        for end in ends:
            typed(end, int | str, "between")
            if isinstance(end, str) and not Path(end).is_file():
                raise UserError(f"between: {absent(end)}")
        if isinstance(ends[0], str):
            reason = "is for two seeds, not for images"
            self.refuse_ignored({"sampler": reason, "constant_speed": reason})
        if self.label != "random":
            self.refuse_ignored({"seed": "needs label=random"})

    def plan(self, out: Path) -> Plan:
        import torch

        from scoregen import parallel

        checkpoint = find_checkpoint(self.checkpoint)
        shape = image_shape(checkpoint)
        model: Any = self.loaded(checkpoint, self.weights, self.null_label)
        known = known_of(checkpoint)
        labels = labels_of(self.label, _rows(self.label, model), model, self.seed, known.classes)
        denoiser = guided(model, self.guidance, labels)
        assert self.between is not None
        between = _between_seeds if isinstance(self.between[0], int) else _between_images
        rows = [None] if labels is None else labels.tolist()
        paths = [between(denoiser, self, row, shape) for row in rows]

        def work() -> None:
            if parallel.rank() == 0:
                self._write(torch.stack(_each(paths)), out, known.range)

        unlabelled = told_unlabelled(checkpoint, labels, self.guidance)
        lines = [
            announced(checkpoint, self.weights),
            *unlabelled,
            f"path: {len(rows)} rows of {self.frames} frames",
            f"out: {out}",
        ]
        return Plan(work, lines, origin(checkpoint, self.weights))

    @property
    def mix(self) -> Callable[..., Any]:
        r"""The function that blends two noises."""
        return _BLENDS[self.blend]

    def _write(self, frames: Any, out: Path, data_range: tuple[float, float] | None) -> None:
        r"""frames (rows, frames, *S): the array, and for images the strip and the GIF, forth and back."""
        import numpy as np

        from scoregen.pictures import fractions, has_ends, is_image, save_grid

        values = frames.float().cpu().numpy()
        print(write_atomically(out / "frames.npz", lambda file: np.savez(file, frames=values)))
        if is_image(frames[0]):
            low, high = data_range if data_range is not None and has_ends(data_range) else frames.aminmax()
            shown = fractions(frames.float().cpu(), (float(low), float(high)))
            print(save_grid(shown.flatten(0, 1), out / "strip.png", columns=frames.shape[1]))
            print(save_gif(shown.transpose(0, 1), out / "path.gif", self.duration))


def _each(paths: list[Callable[[], Any]]) -> list[Any]:
    from scoregen.interruption import end_if_asked

    found = []
    for path in paths:
        end_if_asked()
        found.append(path())
    return found


def _rows(label: Label, model: Any) -> int:
    r"""One a label."""
    if isinstance(label, list):
        return len(label)
    return model.num_classes or 1 if label == "all" else 1


def _between_seeds(denoiser: Any, job: Interpolate, label: int | None, shape: tuple[int, ...]) -> Callable[[], Any]:
    r"""What makes the frames (frames, *S); the ends are what `sample` makes first of these seeds."""
    from scoregen.rng import Stream, generators, randn
    from scoregen.samplers.from_noise import FromNoise
    from scoregen.samplers.start import state_options

    options, latent = state_options(denoiser), denoiser.sde.chart.shape_of(shape)
    seeds = [int(end) for end in job.between or ()]
    a, b = (randn((1, *latent), generators(seed, Stream.SAMPLE, 0, [0]), **options) for seed in seeds)
    try:
        generate = FromNoise(denoiser, job.sampler, label)
    except (ValueError, TypeError) as error:
        raise UserError(f"sampler: {error}") from error
    return lambda: _path(generate, a, b, job)[:, 0]


def _path(generate: Any, a: Any, b: Any, job: Interpolate) -> Any:
    r"""Images along the path between two noises, (frames, 1, *S)."""
    from scoregen.metrics import constant_speed_path
    from scoregen.metrics.smoothness import path_images

    if not job.constant_speed:
        return path_images(generate, a, b, job.frames, job.mix)
    return constant_speed_path(generate, a, b, points=job.frames, probes=job.frames, blend=job.mix)[1]


def _between_images(denoiser: Any, job: Interpolate, label: int | None, shape: tuple[int, ...]) -> Callable[[], Any]:
    r"""What makes the frames (frames, *S); the ends are the images as far as the flow brings them back."""
    import torch

    from scoregen.samplers import interpolate
    from scoregen.samplers.start import state_options

    options = state_options(denoiser)
    known = known_of(find_checkpoint(job.checkpoint))
    if getattr(denoiser, "is_consistency", False):
        raise UserError("between: images have no latents in a consistency function. Give two seeds, [0,1].")
    a, b = (_read(Path(str(file)), shape, known.range).to(**options) for file in job.between or ())
    labels = None if label is None else torch.full((1,), label, device=options["device"])
    return lambda: interpolate(denoiser, a, b, steps=job.frames, label=labels, blend=job.mix)[:, 0]


def _read(file: Path, shape: tuple[int, ...], data_range: tuple[float, float] | None) -> Any:
    r"""An image (1, *S) whose black and white are the range of the data, or an array in their units."""
    import torch

    from scoregen.data.files import as_fraction, read_array, read_picture
    from scoregen.data.units import check_near
    from scoregen.pictures import has_ends

    if file.suffix == ".npy":
        x = torch.from_numpy(read_array(file, "between")).float()
    else:
        x = as_fraction(read_picture(file, "between", mode="L" if shape[0] == 1 else "RGB"))
        if data_range is None or not has_ends(data_range):
            raise UserError(f"between: the range of the data is {data_range}; give arrays (.npy) in their units.")
        x = data_range[0] + (data_range[1] - data_range[0]) * x
    if tuple(x.shape) != tuple(shape):
        raise UserError(f"between: '{file}' has shape {tuple(x.shape)}, the model makes {tuple(shape)}. Resize it.")
    check_near(x, data_range, f"between: the values of '{file}'", "the training", "Give it in their units.")
    return x[None]


def save_gif(frames: Any, path: Path, duration: float) -> Path:
    r"""Writes an endless GIF, forth and back, of frames (frames, rows, C, H, W) in [0, 1]; rows side by side."""
    from PIL import Image

    from scoregen.pictures import to_bytes

    pictures = []
    for frame in frames:
        row = to_bytes(frame).permute(2, 0, 3, 1).flatten(1, 2).numpy()  # (H, rows W, C)
        picture = Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row)
        factor = max(1, 256 // picture.height)
        size = (picture.width * factor, picture.height * factor)
        pictures.append(picture.resize(size, Image.Resampling.NEAREST))
    walk = pictures + pictures[-2:0:-1]
    options: dict[str, Any] = {"append_images": walk[1:], "duration": round(1000 * duration), "loop": 0}
    return write_atomically(path, lambda file: walk[0].save(file, format="GIF", save_all=True, **options))
