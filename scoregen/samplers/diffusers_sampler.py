r"""diffusers' schedulers behind our sampler interface.

diffusers keeps either u (Euler, Heun) or x = u/sqrt(1 + s^2) (DPM-Solver, UniPC) as its state, and hands the network x
in both cases (`scale_model_input`). That tells the two apart without a list of classes.
"""

import inspect
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from scoregen.samplers.base import Callback, Denoise, Noise, Sampler
from scoregen.samplers.grids import Grid
from scoregen.sde.additive import EDM
from scoregen.sde.path import as_time

# what a scheduler must not decide by itself: our grid and our denoiser do
_OPTIONS = {
    "prediction_type": "sample",
    "final_sigmas_type": "zero",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "thresholding": False,
    "clip_sample": False,
}


class DiffusersSampler(Sampler):
    r"""A deterministic scheduler of diffusers on our denoiser, our grid and our processes.

        Works with EulerDiscrete, HeunDiscrete, DPMSolverMultistep, UniPCMultistep and others that take
        `prediction_type="sample"` and keep `sigmas`; which is tried out at construction. Our levels replace the
        scheduler's in float64, but Euler and DPM-Solver take their steps in float32: agreement ends at about 1e-5 times
        s_max.

    Args:
        scheduler: a class of diffusers, or an instance whose other settings (order, algorithm) are kept.
        steps: number of steps.
        grid: noise ratios, decreasing.

    Raises:
        TypeError: a scheduler that cannot be told our levels, that does not return the denoised data at s = 0 (EDMEuler
            and EDMDPMSolver ignore "sample"), or that draws noise of its own.
    """

    def __init__(self, scheduler: Any, steps: int = 18, grid: Grid | None = None) -> None:
        super().__init__(steps, grid)
        self.scheduler = scheduler
        self._class: Any = scheduler if isinstance(scheduler, type) else type(scheduler)
        settings = {} if isinstance(scheduler, type) else dict(getattr(scheduler, "config", {}))
        known = inspect.signature(self._class).parameters
        self._settings = {k: v for k, v in {**settings, **_OPTIONS}.items() if k in known}
        self._try_out()

    def integrate(
        self,
        denoise: Denoise,
        u: Tensor,
        grid: Tensor,
        noise: Noise,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        if not bool((grid.diff() < 0).all()):
            raise ValueError(
                "the grid of a DiffusersSampler must decrease (no time travel), got one with a jump upward."
            )
        scheduler = self._new_scheduler(len(grid) - 1)
        # schedulers of two calls a step (Heun) list the inner levels twice
        inner = grid[1:-1].repeat_interleave(2) if len(scheduler.sigmas) == 2 * (len(grid) - 1) else grid[1:-1]
        scheduler.sigmas = torch.cat([grid[:1], inner, grid[-1:]])
        levels, times = scheduler.sigmas.tolist(), scheduler.timesteps
        state: Tensor = u * (network_scale(levels[0]) / scheduler.scale_model_input(as_time(1.0), times[0]).item())
        step = 0
        for time, s, n in zip(times, levels[:-1], levels[1:], strict=True):
            u = scheduler.scale_model_input(state, time) / network_scale(s)
            state = scheduler.step(denoise(u, s), time, state).prev_sample.to(u.dtype)
            if n == s or n == 0 or len(levels) == len(grid):
                step += 1
                if callback is not None:
                    callback(step - 1, n, state, getattr(denoise, "last", u))
        return state

    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        return self.integrate(denoise, u, as_time([s, n]), noise), None

    def _new_scheduler(self, steps: int) -> Any:
        with warnings.catch_warnings():
            # diffusers hands tensors to numpy in a way that NumPy 2 deprecates
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            scheduler = self._class(**self._settings)
            scheduler.set_timesteps(steps)
        scheduler.set_begin_index(0)
        return scheduler

    def _try_out(self) -> None:
        r"""Two steps on a constant denoiser must end at that constant, whatever the start, without drawing noise."""
        name = self._class.__name__
        before = torch.get_rng_state()
        try:
            u = torch.full((1, 1, 2, 2), 3.0)
            end = self.integrate(_Quarter(), u, torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64), torch.zeros_like)
            problem = (
                None if bool(((end - 0.25).abs() < 1e-4).all()) else "its last step does not end at the denoised data"
            )
        except (AttributeError, TypeError, ValueError, NotImplementedError, IndexError) as error:
            problem = f"it does not run on given levels ({error})"
        if not torch.equal(before, torch.get_rng_state()):
            torch.set_rng_state(before)
            problem = "it draws noise of its own, which no generator can key; use Ancestral or EulerMaruyama"
        if problem:
            raise TypeError(
                f"scheduler must be deterministic and take prediction_type='sample' and sigmas, got {name}: {problem}."
            )


class _Quarter:
    r"""D = 1/4 everywhere."""

    sde = EDM(1.0, 4.0)

    def __call__(self, u: Tensor, s: float) -> Tensor:
        return torch.full_like(u, 0.25)


def network_scale(s: float) -> float:
    r"""1/sqrt(1 + s^2), which takes u to the input x of a network of diffusers."""
    return 1 / math.hypot(1, s)
