r"""What a scheduler of diffusers says about the network beside it: its process, what it estimates, how it is told time.

| schedulers | process | F estimates | timestep |
|---|---|---|---|
| with the levels of a DDPM | `DiscretePath` of them | `prediction_type` | index of the level |
| EDMEuler, EDMDPMSolverMultistep | `EDM` | a mix of y_0 and eps (edm) | log(s)/4 |
| CMStochasticIterative | `EDM` | the end of the path (consistency) | 250 log(s) |
| FlowMatchEuler, FlowMatchHeun, use_flow_sigmas | `RectifiedFlow` | eps - y_0 (flow) | N t |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scoregen.models.adapter import import_diffusers, prediction_of
from scoregen.sde.additive import EDM, RectifiedFlow
from scoregen.sde.chart import Chart
from scoregen.sde.discrete import DiscretePath
from scoregen.sde.process import SDE

_MOST_LEVELS = 10_000


@dataclass(frozen=True)
class Process:
    r"""What a denoiser needs of a scheduler.

    Attributes:
        sde: the process. prediction, time, sigma_data: as in `Denoiser`. time_scale: as in `TimestepNetwork`.
    """

    sde: SDE
    prediction: str
    time: str
    sigma_data: float = 1.0
    time_scale: float = 1.0


def process_of(scheduler: Any, chart: Chart | None = None) -> Process:
    r"""What a scheduler says.

    Args:
        scheduler: of diffusers, or the configuration of one with its `_class_name`.
        chart: data to model coordinates.

    Raises:
        TypeError: a scheduler of another kind. ValueError: a setting that no denoiser has.
    """
    if isinstance(scheduler, Mapping):
        name, config = str(scheduler.get("_class_name")), scheduler
    else:
        name, config = type(scheduler).__name__, scheduler.config
    read = SCHEDULERS.get(name)
    if read is None and hasattr(scheduler, "alphas_cumprod"):  # of the user's own
        read = _levels
    if read is None:
        known = ", ".join(sorted(name.removesuffix("Scheduler") for name in SCHEDULERS))
        raise TypeError(f"scheduler must be one whose process is known, got {name}. They are {known}.")
    if _is_flow(config):
        read = _flow
    return read(name, config, scheduler, chart)


def _is_flow(config: Mapping[str, Any]) -> bool:
    return bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"


def _levels(name: str, config: Mapping[str, Any], scheduler: Any, chart: Chart | None) -> Process:
    prediction = prediction_of(config.get("prediction_type"))
    count = config.get("num_train_timesteps", 1000)
    if not isinstance(count, int) or not 2 <= count <= _MOST_LEVELS:
        raise ValueError(f"num_train_timesteps must be an integer from 2 to {_MOST_LEVELS}, got {count!r}.")
    if isinstance(scheduler, Mapping):
        kind = getattr(import_diffusers(), name)
        scheduler = kind.from_config({key: value for key, value in config.items() if key in _SCHEDULE})
    return Process(DiscretePath.from_scheduler(scheduler, chart), prediction, "index")


# what the levels of a DDPM are a function of; the rest of a scheduler says how to sample
_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


def _edm(name: str, config: Mapping[str, Any], scheduler: Any, chart: Chart | None) -> Process:
    sigma_data, kind = float(config.get("sigma_data", 0.5)), config.get("prediction_type", "epsilon")
    if kind == "v_prediction" and sigma_data == 1:  # where EDM's parametrisation is v with the other sign
        return Process(_exploding(config, chart), "v", "log", 1.0)
    if kind != "epsilon":
        raise ValueError(
            f"prediction_type of {name} must be 'epsilon', or 'v_prediction' with sigma_data=1, got {kind!r} with "
            f"sigma_data={sigma_data:g}."
        )
    return Process(_exploding(config, chart), "edm", "log", sigma_data)


def _exploding(config: Mapping[str, Any], chart: Chart | None) -> EDM:
    low, high = config.get("sigma_min", 0.002), config.get("sigma_max", 80.0)
    return EDM(float(low), float(high), float(config.get("rho", 7.0)), chart=chart)


def _consistency(name: str, config: Mapping[str, Any], scheduler: Any, chart: Chart | None) -> Process:
    return Process(_exploding(config, chart), "consistency", "log", float(config.get("sigma_data", 0.5)), 1000.0)


def _flow(name: str, config: Mapping[str, Any], scheduler: Any, chart: Chart | None) -> Process:
    if config.get("invert_sigmas"):
        raise ValueError(f"invert_sigmas of {name} must be false: its times run from data to noise. It is not read.")
    shift = config.get("flow_shift", config.get("shift", 1.0)) or 1.0
    return Process(
        RectifiedFlow(chart, 1.0 if config.get("use_dynamic_shifting") else float(shift)),
        "flow",
        "flow",
        time_scale=float(config.get("num_train_timesteps", 1000)),
    )


_LEVELS = [
    "DDPM",
    "DDPMParallel",
    "DDIM",
    "DDIMParallel",
    "PNDM",
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "UniPCMultistep",
    "DEISMultistep",
    "SASolver",
    "EulerDiscrete",
    "EulerAncestralDiscrete",
    "HeunDiscrete",
    "KDPM2Discrete",
    "KDPM2AncestralDiscrete",
    "LMSDiscrete",
]

SCHEDULERS: dict[str, Callable[[str, Mapping[str, Any], Any, Chart | None], Process]] = {
    **{f"{name}Scheduler": _levels for name in _LEVELS},
    "EDMEulerScheduler": _edm,
    "EDMDPMSolverMultistepScheduler": _edm,
    "CMStochasticIterativeScheduler": _consistency,
    "FlowMatchEulerDiscreteScheduler": _flow,
    "FlowMatchHeunDiscreteScheduler": _flow,
}
