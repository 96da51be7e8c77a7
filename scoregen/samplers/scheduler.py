r"""Our samplers behind diffusers' scheduler interface: the loop calls the network, the scheduler takes its output.

A sampler of ours asks for D(u, s) when it wants; a loop of diffusers hands it over once a call. So a step is run with
the outputs so far until it asks for one that has not been computed, whose input goes back to the loop. The arithmetic
of the step is repeated, never the network.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch import Tensor

from scoregen.checks import positive, whole
from scoregen.models.adapter import prediction_of
from scoregen.models.preconditioning import PREDICTIONS
from scoregen.rng import Generators, randn
from scoregen.samplers.base import Sampler
from scoregen.samplers.diffusers_sampler import network_scale
from scoregen.sde.discrete import DiscretePath
from scoregen.sde.path import as_time, expand
from scoregen.sde.process import SDE


class _NeedsOutput(Exception):
    r"""Raised inside a step of a sampler that asks for a denoiser call which has not been made yet."""

    def __init__(self, u: Tensor, s: float) -> None:
        super().__init__()
        self.u, self.s = u, s


class _Replay:
    r"""A denoiser or a source of noise that repeats what it gave before, then asks for more."""

    def __init__(self, sde: SDE, values: list[Tensor], more: Callable[..., Tensor]) -> None:
        self.sde, self.values, self.more, self.position = sde, values, more, 0

    def __call__(self, *arguments: Tensor | float) -> Tensor:
        self.position += 1
        return self.values[self.position - 1] if self.position <= len(self.values) else self.more(*arguments)


@dataclass
class _Progress:
    r"""Where a loop stands: the step, its first call, the state before it, and what the step has seen so far."""

    step: int
    call: int
    state: Tensor
    memory: Any = None
    outputs: list[Tensor] = field(default_factory=list)
    draws: list[Tensor] = field(default_factory=list)


class SamplerScheduler:
    r"""One of our samplers as a scheduler of diffusers.

            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t), t, x).prev_sample

        The state is x = u/sqrt(1 + s^2) with `init_noise_sigma` 1 and an idle `scale_model_input`, so that pipelines
        which ignore both run it too. Set it as `pipeline.scheduler`: some constructors replace what they are given.

    Args:
        sampler: any sampler whose calls are known beforehand (not an adaptive one).
        path: the levels of the network.
        prediction_type: what the network estimates: "epsilon", "sample" or "v_prediction".
        clip: the denoised data are clamped to [-clip, clip]; None leaves them.

    Raises:
        TypeError: an adaptive sampler. ValueError: an unknown prediction type, clip <= 0.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(
        self, sampler: Sampler, path: DiscretePath, prediction_type: str = "epsilon", clip: float | None = None
    ) -> None:
        if type(sampler).integrate is not Sampler.integrate:
            raise TypeError(
                f"sampler must be one with a fixed list of calls, got {type(sampler).__name__}. "
                "Use one such as Heun or ExponentialABM."
            )
        if clip is not None:
            positive(clip=clip)
        self.sampler, self.path, self.clip = copy.copy(sampler), path, clip
        self.prediction_type = prediction_type
        self._scales = PREDICTIONS[prediction_of(prediction_type)]
        self.config = SimpleNamespace(num_train_timesteps=len(self), prediction_type=prediction_type)
        self.set_timesteps(sampler.steps)

    @classmethod
    def from_scheduler(cls, sampler: Sampler, scheduler: Any) -> Self:
        r"""In place of a scheduler of diffusers: the same levels, prediction type and clipping.

        Args:
            sampler: as for the class.
            scheduler: one with `alphas_cumprod`, `pipeline.scheduler`.
        """
        config = scheduler.config
        clip = config.get("clip_sample_range", 1.0) if config.get("clip_sample") else None
        return cls(sampler, DiscretePath.from_scheduler(scheduler), config.get("prediction_type"), clip)

    def __len__(self) -> int:
        return len(self.path.log_levels)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        r"""Sets `timesteps`: the (fractional) index of the network for every call, in order.

        Args:
            num_inference_steps: steps of the sampler; one of several calls a step has more timesteps.
            device: of `timesteps`.

        Raises:
            ValueError: steps < 1, or a sampler whose first call is not at the first level (churn at the start).
        """
        whole(1, num_inference_steps=num_inference_steps)
        self.sampler.steps = self.num_inference_steps = int(num_inference_steps)
        self._grid = self.sampler.grid(self.path, self.sampler.steps)
        calls: list[tuple[float, int]] = []
        steps = [0]

        def record(u: Tensor, s: float) -> Tensor:
            calls.append((s, steps[0]))
            return torch.zeros_like(u)

        def count(i: int, *_: Tensor | float) -> None:
            steps[0] = i + 1

        self.sampler.integrate(
            _Replay(self.path, [], record), torch.zeros(1, 1), self._grid, torch.zeros_like, callback=count
        )
        self._levels, self._owners = [s for s, _ in calls], [step for _, step in calls]
        if self._levels[0] != self._grid[0]:
            raise ValueError(
                f"the first call of the sampler must be at the first level s={self._grid[0]:.4g}, got "
                f"s={self._levels[0]:.4g}. Keep churn below the first level (churn_max)."
            )
        self.timesteps = self.path.index_of(as_time(self._levels)).to(torch.float32).to(device)
        self._progress: _Progress | None = None

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        r"""The sample: it is the network's input already."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        r"""alpha x_0 + sigma noise at the indices `timesteps`, (B,) or ()."""
        t = as_time(timesteps) / (len(self) - 1)
        return expand(self.path.alpha(t), noise) * original_samples + expand(self.path.sigma(t), noise) * noise

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
        *,
        eta: float | None = None,
        use_clipped_model_output: bool | None = None,
    ) -> SimpleNamespace | tuple[Tensor]:
        r"""From one network call to the next.

        Args:
            model_output: the network at (sample, timestep), (B, *S); channels of a learned variance are dropped.
            timestep: one of `timesteps`; a loop may begin at any that begins a step of the sampler.
            sample: the network's input x, (B, *S).
            generator: for samplers that draw noise.
            return_dict: an object with `prev_sample`, else a tuple.
            eta, use_clipped_model_output: what pipelines of DDIM hand over; the sampler has its own noise, and with
                `clip` the clamped data in every step.

        Returns:
            The next input of the network, or the data after the last call.

        Raises:
            ValueError: a timestep that begins no step, or an eta that the sampler does not have.
        """
        self._check_ddim(eta, use_clipped_model_output)
        progress = self._progress
        if progress is None or abs(float(timestep) - float(self.timesteps[progress.call])) > 1e-3:
            progress = _Progress(*self._begin(timestep), sample)
        s = self._levels[progress.call]
        u = sample / network_scale(s)
        _, skip, out = (expand(c, u) for c in self._scales(as_time(s), 1.0, 0.0))
        denoised = skip * u + out * model_output[:, : u.shape[1]]
        if self.clip is not None:
            denoised = denoised.clamp(-self.clip, self.clip)
        if not progress.outputs and not progress.draws:
            progress.state = u
        progress.outputs.append(denoised)
        progress.call += 1
        sample = self._advance(progress, generator)
        self._progress = None if progress.step == len(self._grid) - 1 else progress
        return SimpleNamespace(prev_sample=sample) if return_dict else (sample,)

    def _check_ddim(self, eta: float | None, clipped: bool | None) -> None:
        r"""Refuses what a DDIM of diffusers would do and the sampler does not; 0 is the default of pipelines."""
        if eta and eta != getattr(self.sampler, "eta", None):
            raise ValueError(
                f"eta must be that of the sampler or 0, got eta={eta} with {type(self.sampler).__name__}. Make the "
                f"scheduler of DDIM(eta={eta})."
            )
        if clipped and self.clip is None:
            raise ValueError("use_clipped_model_output needs a scheduler that clips. Make it with clip=1.0.")

    def _begin(self, timestep: Tensor | float) -> tuple[int, int]:
        distance = (self.timesteps.cpu() - torch.as_tensor(timestep, dtype=torch.float32).cpu()).abs()
        inside = torch.tensor([False, *(a == b for a, b in pairwise(self._owners))])
        distance[inside] = torch.inf
        call = int(distance.argmin())
        if distance[call] > 1e-3:
            raise ValueError(
                f"timestep must be one of scheduler.timesteps that begins a step, got {float(timestep):.6g}. "
                "Call set_timesteps before a new loop."
            )
        return self._owners[call], call

    def _advance(self, progress: _Progress, generator: Generators) -> Tensor:
        r"""Takes steps until one asks for a network call, whose input is returned, or to the end."""

        def need(u: Tensor, s: float) -> Tensor:
            raise _NeedsOutput(u, s)

        def draw(like: Tensor) -> Tensor:
            progress.draws.append(randn(like.shape, generator, like.dtype, like.device))
            return progress.draws[-1]

        while progress.step < len(self._grid) - 1:
            s, n = self._grid[progress.step : progress.step + 2].tolist()
            u, noise = progress.state, _Replay(self.path, progress.draws, draw)
            denoise = _Replay(self.path, progress.outputs, need)
            try:
                if n > s:
                    u, memory = u + math.sqrt(n**2 - s**2) * noise(u), None
                else:
                    u, memory = self.sampler.step(denoise, u, s, n, noise, progress.memory)
            except _NeedsOutput as request:
                if progress.call >= len(self._levels) or request.s != self._levels[progress.call]:
                    raise TypeError(
                        f"sampler must be one with a fixed list of calls, got {type(self.sampler).__name__}, which "
                        f"asks for an unforeseen one at s={request.s:.6g}. Use Heun or ExponentialABM."
                    ) from None
                return request.u * network_scale(request.s)
            progress.step, progress.state, progress.memory = progress.step + 1, u, memory
            progress.outputs, progress.draws = [], []
        return progress.state
