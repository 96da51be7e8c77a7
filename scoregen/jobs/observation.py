r"""The law of what was recorded, in the job restore: speckle or counts, and the chain that draws by it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

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


def takes_zeros(job: "Restore") -> bool:
    r"""Whether the law of what was recorded knows zeros: counts, and what was rounded."""
    return job.observation is not None and (of_counts(job) or locate(target_of(job.observation)) is Quantised)


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


def check_counts(units: "list[list[Units]]") -> None:
    r"""Refuses files whose counts are not in one scale."""
    scales = sorted({one.scale for own in units for one in own})
    if len(scales) > 1:
        raise UserError(
            f"scale: files of several types have several full scales, {scales[0]:g} to {scales[-1]:g}. Counts need "
            "one: give scale, the value that is 1 in the training data, or scale=auto."
        )


def noise_ratio(sde: SDE, intensity: float, counts: float) -> float:
    r"""The deviation of counts, in chart coordinates, where their mean is an intensity."""
    axis = LogAxis.of(sde, "observation=poisson")
    slope: float = axis.rate if axis.offset is None else axis.rate / (intensity + axis.offset)
    return slope * intensity / math.sqrt(max(counts, 1e-9))


def check_recorded(
    scenes: "Sequence[Scene]", units: "list[list[Units]]", reading: "Reading", noise: "Noise", law: PixelObservation
) -> None:
    r"""Refuses values that the law cannot give; counts in the numbers of the files, others in those of the training."""
    from scoregen.restoration import Counts, check_values

    if isinstance(noise, Counts):
        law, units = PoissonObservation(noise.gain), [[replace(one, scale=1.0) for one in own] for own in units]
    check_values(scenes, units, reading, law.check)


def chain(job: "Restore", tiled: Tiled, noise: "Noise", units: "Units") -> SplitGibbs | None:
    r"""The chain of draws by the exact law of what was recorded; None without one."""
    from scoregen.restoration import Speckle, on_observed

    if job.observation is None:
        return None
    known = {"looks": noise.looks} if isinstance(noise, Speckle) else {"gain": gain_of(job) / units.scale}
    law = build(job.observation | known, where="observation")
    gibbs: SplitGibbs = build(job.gibbs, where="gibbs", observation=law)
    try:
        gibbs.check(on_observed(gibbs, tiled))
    except (TypeError, ValueError) as error:
        raise UserError(f"gibbs: {error}") from error
    return gibbs
