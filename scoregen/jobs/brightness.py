r"""What the job restore finds in its images before it starts: units, scale, looks, and pixels without data."""

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scoregen.data.units import percent
from scoregen.errors import UserError
from scoregen.jobs.conditioning import known_of
from scoregen.jobs.observation import check_one_scale, gain_of, of_counts, of_steps, takes_zeros
from scoregen.parallel import gather, rank

if TYPE_CHECKING:
    from scoregen.jobs.restore import Restore
    from scoregen.restoration import Clean, Noise, Reading, Scene, Units
    from scoregen.restoration.survey import Survey

T = TypeVar("T")
_TOO_MANY = 0.5  # share of the valid pixels below the floor
_LOOKS = 2.0  # factor of measured looks over given ones that is told: texture makes them fewer, never more


@dataclass(frozen=True)
class Brightness:
    r"""What was found.

    Args:
        units: of the planes of each scene. factor: of their scale, from scale=auto. noise: that is removed.
        middle: median intensity. rest: the same, for pixels without data; None where there are none.
        lines: to be printed. facts: for the record.
    """

    units: "list[list[Units]]"
    factor: float
    noise: "Noise"
    middle: float
    rest: float | None
    lines: list[str]
    facts: dict[str, float]


def looked(
    job: "Restore", scenes: "Sequence[Scene]", checkpoint: Path, offset: float, span: Sequence[float] | None
) -> Brightness:
    r"""Reads all images once, on the first process, and compares them with the job and the training.

    Args:
        job: it. scenes: its images. checkpoint: knows the range of its data. offset: of its process.
        span: lowest and highest clean value by its process, where the data had no highest one; None: not known.

    Raises:
        UserError: on every process, for values that cannot be restored, or are in other units.
    """
    top = _top(checkpoint)
    low, high = (0.0, top) if top is not None else span or (0.0, None)
    ends = None if high is None else (low + offset, high + offset)
    return first_only(lambda: _looked(job, scenes, top, ends))


def _top(checkpoint: Path) -> float | None:
    r"""The highest value of the training data of a checkpoint, None where there is none."""
    data = known_of(checkpoint).range
    return None if data is None or data[1] == float("inf") else data[1]


def clean_of(job: "Restore", scenes: "Sequence[Scene]", found: Brightness, checkpoint: Path) -> "Clean | None":
    r"""The clean images that the job was given, in units as those of its images; None without.

    Raises:
        UserError: one is missing, has another size, or is in other units.
    """
    from scoregen.restoration import Clean, Reading, units_of
    from scoregen.restoration.clean import check_clean, open_clean

    if job.clean is None:
        return None
    top, scale = _top(checkpoint), None if job.scale == "auto" else job.scale
    clean = open_clean(job.clean, scenes, job.max_pixels, job.layout)
    units = [[units_of(p.dtype, job.unit, scale, None, top or 1.0) for p in scene.planes] for scene in clean]
    units = [[replace(one, scale=one.scale * found.factor) for one in own] for own in units]
    pairs = Clean(clean, units, top)
    first_only(lambda: check_clean(scenes, found.units, Reading(job.nodata), pairs))
    return pairs


def first_only(compute: Callable[[], T]) -> T:
    r"""What the first process computes, on every process; so is a mistake that it finds."""
    found, failure = None, None
    if rank() == 0:
        try:
            found = compute()
        except UserError as error:
            failure = error
    value, text = gather((found, None if failure is None else str(failure)))[0]
    if failure is not None:
        raise failure
    if text is not None:
        raise UserError(text)
    return typing.cast(T, value)


def _looked(
    job: "Restore", scenes: "Sequence[Scene]", top: float | None, ends: tuple[float, float] | None
) -> Brightness:
    from scoregen.restoration import Reading, units_of
    from scoregen.restoration.survey import Survey, look

    scale = None if job.scale == "auto" else job.scale
    units = [[units_of(p.dtype, job.unit, scale, job.floor, top or 1.0) for p in scene.planes] for scene in scenes]
    units = [[replace(one, zeros=takes_zeros(job)) for one in own] for own in units]
    if of_counts(job) or of_steps(job):
        check_one_scale(units, "Counts" if of_counts(job) else "Steps")
    reading, survey = Reading(job.nodata), Survey()
    for scene, own in zip(scenes, units, strict=True):
        look(scene, own, reading, survey)
    valid = survey.pixels - survey.missing
    if not valid:
        raise UserError("images: no pixel has data: all are NaN or the value of nodata. Check nodata and the files.")
    if survey.raised > _TOO_MANY * valid:
        raise UserError(
            f"floor: {percent(survey.raised / valid)} of the pixels are darker than floor={job.floor:g}. It is for few "
            "pixels. Check unit, or give a lower one."
        )
    noise, lines, facts = _noise(job, scenes, units, reading)
    factor, more = _scale(job, survey, noise, ends, units[0][0])
    units = [[replace(one, scale=one.scale * factor) for one in own] for own in units]
    first = units[0][0]
    facts |= {"scale_used": float(f"{first.value(1.0):.6g}")} if job.scale == "auto" else {}
    lines += [f"unit: {first.unit}; {_ones(scenes, units)} is 1 in the training data", *more]
    if survey.missing:
        lines.append(f"no data: {percent(survey.missing / survey.pixels)} of the pixels, given back as they are")
    if survey.raised:
        lines.append(f"floor: {percent(survey.raised / valid)} of the pixels with data are raised to it")
    middle = survey.quantile(0.5) / factor
    return Brightness(units, factor, noise, middle, middle if survey.missing else None, lines, facts)


def _ones(scenes: "Sequence[Scene]", units: "list[list[Units]]") -> str:
    r"""The values that are 1 in the training data, each with the first file that has it."""
    found: dict[str, str] = {}
    for scene, own in zip(scenes, units, strict=True):
        for one in own:
            found.setdefault(f"{one.value(1.0):.4g}", scene.name)
    return ", ".join(f"{value} in '{name}'" for value, name in found.items())


def _scale(
    job: "Restore", survey: "Survey", noise: "Noise", ends: tuple[float, float] | None, units: "Units"
) -> tuple[float, list[str]]:
    r"""The factor of the scale, and what is to be told of it."""
    from scoregen.restoration.survey import check_scale

    if ends is None:
        if job.scale == "auto":
            raise UserError("scale: the training data have no highest value to compare with, got scale=auto. Give it.")
        return 1.0, ["scale: the training data have no highest value, so the brightness was not compared"]
    if job.scale == "auto":
        return survey.bright(noise, units) / ends[1], []
    told = check_scale(survey, noise, ends, units, given=job.scale is not None)
    return 1.0, [] if told is None else [told]


def _noise(
    job: "Restore", scenes: "Sequence[Scene]", units: "list[list[Units]]", reading: "Reading"
) -> tuple["Noise", list[str], dict[str, float]]:
    r"""The noise, what is to be told of it, and the facts."""
    from scoregen.restoration import Counts, Speckle

    if not of_counts(job):
        looks, lines, facts = _looks(job, scenes, units, reading)
        return Speckle(looks), lines, facts
    whole = next((scene for scene in scenes if any(plane.dtype.kind in "iu" for plane in scene.planes)), None)
    if whole is None:
        return Counts(gain_of(job)), [], {}
    told = f"counts: '{whole.name}' holds integers, so its result is rounded to whole ones. Save floats to keep more"
    return Counts(gain_of(job)), [told], {}


def _check_complex(scenes: "Sequence[Scene]", looks: float) -> None:
    r"""Refuses less than a look for complex images, whose squared size has a whole one."""
    name = next((scene.name for scene in scenes if any(plane.dtype.kind == "c" for plane in scene.planes)), None)
    if name is not None and looks < 1:
        raise UserError(
            f"looks: the intensity of complex images has at least 1 look, got looks={looks:g} for '{name}'. Half a "
            "look is that of 2 Re^2 or 2 Im^2 alone: write these as files (docs/despeckling.md, Complex images)."
        )


def _looks(
    job: "Restore", scenes: "Sequence[Scene]", units: "list[list[Units]]", reading: "Reading"
) -> tuple[float, list[str], dict[str, float]]:
    r"""The looks, what is to be told of them, and the facts."""
    from scoregen.restoration import estimate_looks

    try:
        found = estimate_looks(scenes, units, reading)
    except UserError:
        if job.looks == "estimate":
            raise
        found = None
    if job.looks != "estimate":
        looks = float(job.looks or 0)
        _check_complex(scenes, looks)
        if found is None or found.value - 3 * found.spread < _LOOKS * looks:
            return looks, [], {}
        return (
            looks,
            [
                f"looks: {looks:g} given, but homogeneous windows have {found.value:.3g}. Amplitudes taken for "
                "intensities have four times their looks (unit=amplitude); looks=estimate takes what is measured"
            ],
            {},
        )
    assert found is not None
    looks = float(f"{found.value:.4g}")
    said = f"looks: {looks:g} +- {found.spread:.2g}, estimated from {found.windows} homogeneous windows"
    return looks, [said], {"looks_estimated": looks, "looks_spread": float(f"{found.spread:.2g}")}
