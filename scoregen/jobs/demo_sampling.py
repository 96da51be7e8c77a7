r"""What the demo draws from a denoiser: samples and interpolations, made by the jobs `sample` and `interpolate`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scoregen.checks import inside
from scoregen.config import build
from scoregen.data.identity import Known
from scoregen.data.units import percent
from scoregen.description import option
from scoregen.errors import UserError, closest
from scoregen.jobs.conditioning import Label, image_shape, known_of
from scoregen.jobs.job import Job
from scoregen.pictures import Range, has_ends

if TYPE_CHECKING:
    import numpy as np

    from scoregen.jobs.demo import Demo

J = TypeVar("J", bound=Job)
_OFFERED = (
    *("flow_map", "velocity_abm", "exponential_abm", "heun", "ddim", "exponential_ab"),
    *("ancestral", "euler_maruyama", "predictor_corrector", "dale_langevin"),
)
MOST_CALLS, MOST_SAMPLES, MOST_FRAMES = 128, 64, 32
NO_LABEL = "none"


@dataclass(frozen=True)
class Drawn:
    r"""What a button has made.

    Args:
        pictures: files of them. text: what is to be said of it. command: that makes the same.
    """

    pictures: list[Path]
    text: str
    command: str


@dataclass(frozen=True)
class Drawing:
    r"""A denoiser behind the tabs for samples and interpolations.

    Args:
        demo: names the checkpoint. model: that was loaded from it. shape: shape of a sample. known: of the data.
    """

    demo: "Demo"
    model: Any
    shape: tuple[int, ...]
    known: Known

    @property
    def images(self) -> bool:
        r"""Whether samples are pictures, grey or RGB."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    @property
    def labels(self) -> list[tuple[str, int | str]]:
        r"""(name, value) of the labels of samples; empty for an unconditional model."""
        classes = getattr(self.model, "num_classes", None) or 0
        names = self.known.classes or tuple(map(str, range(classes)))
        if not classes:
            return []
        return [("none", NO_LABEL), ("all, in turn", "all"), *((names[k], k) for k in range(classes))]

    def sample(self, sampler: str, calls: int, n: int, seed: int, out: Path, **more: Any) -> Drawn:
        r"""Samples of consecutive seeds.

        Args:
            sampler: an option of the group sampler. calls: network calls of an image, at most. n: samples.
            seed: as in the job. out: an empty folder. more: label and guidance, of a model with classes.

        Raises:
            UserError, ValueError: a value that the job refuses, or that is too large for a page.
        """
        import numpy as np

        from scoregen.jobs.sample import Sample

        inside(1, MOST_CALLS, calls=calls)
        inside(1, MOST_SAMPLES, n=n)
        node, used = self._sampler(sampler, calls)
        values: dict[str, Any] = {"n": n, "seed": seed, **_conditions(more)}
        of_png = self.images and has_ends(self.known.range)
        known = self.demo.origin() | ({} if self.demo.null_label is None else {"null_label": self.demo.null_label})
        job = Sample(**known, **values, sampler=build(node, where="sampler"), format="npz", batch_size=16)
        keeping(job, self.model).plan(out).work()
        with np.load(out / "samples.npz") as file:
            told = _told(file["images"], self.known.range) if self.images else ""
        text = f"{used * (1 if values.get('guidance', 1) == 1 else 2)} network calls an image. {told}"
        extra = {} if of_png else {"format": "npz"}
        steps = {"sampler": sampler, "sampler.steps": node["steps"]}
        return Drawn([out / "grid.png"], text.strip(), command("sample", known | steps | values | extra))

    def interpolate(self, sampler: str, calls: int, between: list[int], frames: int, out: Path, **more: Any) -> Drawn:
        r"""The path between the first samples of two seeds, as a strip and a GIF.

        Args:
            sampler, calls, out, more: as in `sample`. between: two seeds. frames: ends included.
        """
        import numpy as np

        from scoregen.jobs.interpolate import Interpolate

        inside(1, MOST_CALLS, calls=calls)
        inside(2, MOST_FRAMES, frames=frames)
        node, used = self._sampler(sampler, calls)
        values: dict[str, Any] = {"between": between, "frames": frames, **_conditions(more)}
        known = self.demo.origin() | ({} if self.demo.null_label is None else {"null_label": self.demo.null_label})
        job = Interpolate(**known, **values, sampler=build(node, where="sampler"))
        keeping(job, self.model).plan(out).work()
        with np.load(out / "frames.npz") as file:
            told = _told(file["frames"], self.known.range)
        text = f"{used * (1 if values.get('guidance', 1) == 1 else 2)} network calls a frame. {told}"
        steps = {"sampler": sampler, "sampler.steps": node["steps"]}
        return Drawn(
            [out / "path.gif", out / "strip.png"], text.strip(), command("interpolate", known | steps | values)
        )

    def samplers(self, deterministic: bool = False) -> list[str]:
        r"""Options of the group sampler that fit the model, the one to begin with first."""
        if getattr(self.model, "is_consistency", False):
            return ["consistency"]
        names = _OFFERED if getattr(self.model, "takes_next", False) else _OFFERED[1:]
        return [name for name in names if self._fits(name, deterministic)]

    def calls(self, sampler: str) -> int:
        r"""The network calls of an option as it stands in its file, at most `MOST_CALLS`."""
        from scoregen.jobs.calls import network_calls

        return min(MOST_CALLS, network_calls(build(option("sampler", sampler), where="sampler"), self.model.sde))

    def _fits(self, name: str, deterministic: bool) -> bool:
        from scoregen.jobs.calls import check_sampler, network_calls
        from scoregen.samplers.from_noise import FromNoise

        sampler = build({**option("sampler", name), "steps": 4}, where="sampler")
        try:
            check_sampler(sampler, self.model)
            network_calls(sampler, self.model.sde)
            if deterministic:
                FromNoise(self.model, sampler)
        except (ValueError, TypeError):
            return False
        return True

    def _sampler(self, name: str, calls: int) -> tuple[dict[str, Any], int]:
        r"""The node of a sampler with the most steps for so many calls, and the calls that it takes."""
        from scoregen.jobs.sweep import plans_of

        if name not in (offered := self.samplers()):
            raise UserError(f"sampler: '{name}' is not offered for this model. {closest(name, offered)}")
        ((node, _, used),) = plans_of(name, [calls], self.model.sde)
        return node, used


def drawing_of(demo: "Demo", checkpoint: Path, model: Any) -> Drawing | str:
    r"""What draws from a model; or in a sentence why the page does not."""
    from scoregen.jobs.table_rows import schema_in

    if not hasattr(model, "sde"):
        return f"The checkpoint holds a classifier ({type(model).__name__}), which makes no samples."
    if schema_in(checkpoint) is not None:
        return "The model is of a table. Its rows are drawn by scoregen sample format=csv."
    try:
        shape = image_shape(checkpoint)
    except UserError as error:
        return str(error)
    found = Drawing(demo, model, shape, known_of(checkpoint))
    return found if found.samplers() else "No sampler of the page fits this model."


def path_of(drawing: Drawing | str) -> Drawing | str:
    r"""What interpolates; or in a sentence why the page does not."""
    if isinstance(drawing, str):
        return drawing
    if not drawing.images:
        return f"The samples have shape {drawing.shape}. Interpolations are shown for grey and RGB images."
    return drawing if drawing.samplers(deterministic=True) else "No deterministic sampler of the page fits this model."


def keeping(job: J, model: Any) -> J:
    r"""The job, with a model that was loaded before in place of its own: what it loads is not one of its fields."""
    object.__setattr__(job, "loaded", lambda *_: model)
    return job


def command(job: str, values: Mapping[str, Any]) -> str:
    r"""The command line of a job, quoted for a shell and for Hydra."""
    return " ".join(["scoregen", job, *(_override(key, value) for key, value in values.items())])


def _override(key: str, value: Any) -> str:
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
    if re.fullmatch(r"[\w./:,@\[\]-]+", text, re.ASCII):
        return f"{key}={text}"
    escaped = re.sub(r'(\\+)(?="|$)', r"\1\1", text).replace('"', '\\"')  # to Hydra others stand for themselves
    return "'" + f'{key}="{escaped}"'.replace("'", "'\\''") + "'"


def _conditions(given: Mapping[str, Any]) -> dict[str, Label | float]:
    r"""Label and guidance, where they are not those that a job has anyway."""
    label, guidance = given.get("label", NO_LABEL), given.get("guidance", 1)
    found: dict[str, Label | float] = {} if label in (NO_LABEL, None) else {"label": label}
    return found if guidance == 1 else found | {"guidance": guidance}


def _told(values: "np.ndarray", data_range: Range | None) -> str:
    r"""What the picture of some images does not show: values beyond the ends of the range, and what these are."""
    low, high = float(values.min()), float(values.max())
    if data_range is None or not has_ends(data_range):
        return f"Black and white are the lowest and the highest value, {low:.3g} and {high:.3g}."
    half = (data_range[1] - data_range[0]) / 510  # of a step of 8 bits, which rounding hides
    share = float(((values < data_range[0] - half) | (values > data_range[1] + half)).mean())
    if not share:
        return ""
    return (
        f"{percent(share)} of the values lie outside the range of the data, {data_range[0]:g} to {data_range[1]:g}. "
        f"The lowest value is {low:.3g}, the highest {high:.3g}. The picture shows those outside as black or white."
    )
