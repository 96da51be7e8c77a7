r"""The law of what was recorded, in the job restore: speckle or counts, and the chain that draws by it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scoregen.config import accepts, build, target_of
from scoregen.errors import UserError
from scoregen.samplers import PoissonObservation, Quantised, SplitGibbs, Tiled
from scoregen.samplers.pixel_axis import LogAxis
from scoregen.samplers.pixel_observation import PixelObservation
from scoregen.sde import SDE
from scoregen.targets import locate

if TYPE_CHECKING:
    from scoregen.jobs.restore import Restore
    from scoregen.restoration import Noise, Reading, Scene, Units


def of_counts(job: "Restore") -> bool:
    r"""Whether the values are counts, not speckle."""
    return job.observation is not None and accepts(job.observation, "gain", "observation")


def of_steps(job: "Restore") -> bool:
    r"""Whether the values were rounded to steps."""
    return job.observation is not None and locate(target_of(job.observation)) is Quantised


def takes_zeros(job: "Restore") -> bool:
    r"""Whether the law of what was recorded knows zeros: counts, and what was rounded."""
    return of_counts(job) or of_steps(job)


def check_observation(job: "Restore") -> None:
    r"""Refuses keys that an observation, or none, leaves without meaning."""
    if job.observation is None:
        job.refuse_ignored({"gibbs": "needs an observation (observation=gamma)"})
        return
    job.refuse_ignored({"sampler": "is gibbs.sampler where there is an observation"})
    if not job.samples:
        raise UserError("observation: needs samples=1 or more, the draws that it makes, got samples=0.")
    if of_counts(job):
        reason = "is of speckle, and observation=poisson is of counts"
        job.refuse_ignored({"looks": reason, "unit": reason, "floor": "is of speckle; zeros are counts"})
        return
    if not accepts(job.observation, "looks", "observation"):
        raise UserError(
            f"observation: must be a law of speckle or counts (gamma, quantised or poisson), got "
            f"{job.observation['_target_']}. Call SplitGibbs from Python (docs/despeckling.md)."
        )
    if of_steps(job):
        job.refuse_ignored(
            {
                "unit": "is intensity for observation=quantised, whose steps are those of intensities",
                "floor": "would move values off the steps of observation=quantised, which takes zeros as they are",
            }
        )
    if job.observation.get("looks") not in (None, job.looks):
        raise UserError(
            f"observation.looks: must be looks={job.looks} of the job, got {job.observation['looks']}. Leave it out."
        )


def gain_of(job: "Restore") -> float:
    r"""The value of one count in the files."""
    gain = None if job.observation is None else job.observation.get("gain")
    if gain is None:
        return 1.0
    if isinstance(gain, bool) or not isinstance(gain, int | float) or not 0 < gain < float("inf"):
        raise UserError(f"observation.gain: must be > 0, the value of one count in the files, got {gain!r}.")
    return float(gain)


def steps_of(job: "Restore", scenes: "Sequence[Scene]", looks: float) -> Quantised:
    r"""The law of values that were rounded, in the numbers of the files; by default that of the type of integers.

    Raises:
        UserError: floats whose steps are not given, or files of several types of integers.
    """
    assert job.observation is not None
    given = {key: value for key, value in job.observation.items() if value is not None}
    first = {plane.dtype: scene.name for scene in scenes for plane in scene.planes}
    whole = [dtype for dtype in first if dtype.kind in "iu"]
    unsaid = [f"observation.{key}" for key in ("step", "high") if key not in given]
    if unsaid and len(whole) < len(first):
        name = next(name for dtype, name in first.items() if dtype.kind not in "iu")
        raise UserError(
            f"{' and '.join(unsaid)}: a value is required, in the numbers of the files: '{name}' holds floats, which "
            "do not tell. For 8 bits that were saved as floats: observation.step=1 observation.high=255."
        )
    if "high" not in given and len(whole) > 1:
        raise UserError(
            f"observation.high: files of {' and '.join(map(str, whole))} have several highest values. Give it, or "
            "restore the files of each type apart."
        )
    ends = {"step": 1.0, "low": 0.0} | ({"high": float(np.iinfo(whole[0]).max)} if whole else {})
    law: Quantised = build(ends | given, where="observation", looks=looks)
    return law


def check_one_scale(units: "list[list[Units]]", what: str) -> None:
    r"""Refuses files whose counts, or steps, are not in one scale."""
    scales = sorted({one.scale for own in units for one in own})
    if len(scales) > 1:
        raise UserError(
            f"scale: files of several types have several full scales, {scales[0]:g} to {scales[-1]:g}. {what} need "
            "one: give scale, the value that is 1 in the training data, or restore the files of each type apart."
        )


def noise_ratio(sde: SDE, intensity: float, counts: float) -> float:
    r"""The deviation of counts, in chart coordinates, where their mean is an intensity."""
    axis = LogAxis.of(sde, "observation=poisson")
    slope: float = axis.rate if axis.offset is None else axis.rate / (intensity + axis.offset)
    return slope * intensity / math.sqrt(max(counts, 1e-9))


def check_recorded(
    scenes: "Sequence[Scene]", units: "list[list[Units]]", reading: "Reading", law: PixelObservation
) -> None:
    r"""Refuses values that a law in the numbers of the files cannot give."""
    from scoregen.restoration.survey import check_values

    check_values(scenes, [[replace(one, scale=1.0) for one in own] for own in units], reading, law.check)


def law_of(job: "Restore", scenes: "Sequence[Scene]", noise: "Noise") -> PixelObservation | None:
    r"""The law of what was recorded, in the numbers of the files; None without one."""
    from scoregen.restoration import Speckle

    if job.observation is None:
        return None
    if not isinstance(noise, Speckle):
        return PoissonObservation(gain_of(job))
    if of_steps(job):
        return steps_of(job, scenes, noise.looks)
    law: PixelObservation = build({**job.observation, "looks": noise.looks}, where="observation")
    return law


def chain(job: "Restore", tiled: Tiled, law: PixelObservation | None, units: "Units") -> SplitGibbs | None:
    r"""The chain of draws by the exact law of what was recorded, in the units of the training; None without one."""
    from scoregen.restoration.restorer import on_observed

    if law is None:
        return None
    if isinstance(law, Quantised):
        law = Quantised(law.step / units.scale, law.low / units.scale, law.high / units.scale, law.looks)
    elif isinstance(law, PoissonObservation):
        law = PoissonObservation(law.gain / units.scale)
    gibbs: SplitGibbs = build(job.gibbs, where="gibbs", observation=law)
    try:
        gibbs.check(on_observed(gibbs, tiled))
    except (TypeError, ValueError) as error:
        raise UserError(f"gibbs: {error}") from error
    return gibbs
