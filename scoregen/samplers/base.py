r"""The sampler interface: from noise (or a noisy observation) to data through a denoiser D(u, s).

State is u = y_0 + s eps; a step goes from the noise ratio s to the next one. One implementation serves every process,
since the process enters only through its chart, its prior and its grid.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from scoregen.models.protocol import DenoiserLike, jump, takes_next
from scoregen.parallel import moved
from scoregen.progress import progress as progress_bar
from scoregen.rng import Generators, randn
from scoregen.samplers.grids import Grid, Karras, check_grid, check_steps
from scoregen.samplers.start import check_generators, check_label, observed_state, prior_state
from scoregen.sde.process import SDE

Noise = Callable[[Tensor], Tensor]
Callback = Callable[[int, float, Tensor, Tensor], None]


class Denoise(Protocol):
    r"""D(u, s) inside a sampler, with label and guidance bound."""

    @property
    def sde(self) -> SDE:
        r"""The process."""
        ...

    def __call__(self, u: Tensor, s: float, /) -> Tensor:
        r"""E[y_0 | u], (B, *S), for u (B, *S) at the noise ratio s."""
        ...


class Sampler(ABC):
    r"""A rule for one step, and the loop around it.

    Args:
        steps: number of steps, >= 1.
        grid: noise ratios; Karras with rho 7 unless given.

    Raises:
        ValueError: steps < 1.

    Attributes:
        couples_batch: whether an image depends on the others of its batch.
        takes_consistency: whether it samples a consistency function, which jumps to the data and is noised again.
    """

    couples_batch = False
    takes_consistency = False

    def __init__(self, steps: int = 18, grid: Grid | None = None) -> None:
        self.steps = check_steps(steps)
        self.grid = Karras() if grid is None else check_grid(grid)

    @abstractmethod
    def step(self, denoise: Denoise, u: Tensor, s: float, n: float, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        r"""One step from noise ratio s to n < s.

        Args:
            denoise: D(u, s), label and guidance bound; `denoise.sde` is the process.
            u: state (B, *S).
            s, n: noise ratios; n = 0 on the last step.
            noise: gives standard normal noise like its argument.
            memory: what the last step returned, None on the first step and after a jump upward.

        Returns:
            The next state and the memory for the next step.
        """

    def __call__(
        self,
        denoiser: DenoiserLike,
        shape: tuple[int, ...] | None = None,
        *,
        start: tuple[Tensor, Tensor | float] | None = None,
        label: Tensor | None = None,
        generator: Generators = None,
        noise: Noise | None = None,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        r"""Samples.

        Args:
            denoiser: D(u, s) of a process.
            shape: (B, *S), to start from the prior; or
            start: (x_t, t), to start from noisy data x_t (B, *S) at the scalar time t (purification, despeckling,
                editing).
            label: (B,) integers, best on the CPU, where a look at their range waits for no device.
            generator: one, or a list with one a sample: then sample k does not depend on the batch.
            noise: replaces the normal draws of the steps (a Brownian tree, zeros).
            progress: shows a bar on a terminal.
            callback: called as callback(i, s_next, u, last denoised) after every step.

        Returns:
            Data (B, *S), in its own units.

        Raises:
            ValueError: neither or both of shape and start, labels out of range, a list of generators of the wrong
                length.
        """
        differentiate = start is not None and start[0].requires_grad
        with torch.set_grad_enabled(differentiate and torch.is_grad_enabled()):
            u, grid = self._begin(denoiser, shape, start, generator)
            check_label(denoiser, label, len(u))
            label = None if label is None else moved(label, u.device)
            if noise is None:
                noise = _default_noise(generator)
            u = self.integrate(Bound(denoiser, label), u, grid, noise, progress, callback)
            return denoiser.sde.from_chart(u)

    def _begin(
        self,
        denoiser: DenoiserLike,
        shape: tuple[int, ...] | None,
        start: tuple[Tensor, Tensor | float] | None,
        generator: Generators,
    ) -> tuple[Tensor, Tensor]:
        r"""The first state and the grid."""
        check_suits(self, denoiser)
        if shape is not None and start is None:
            check_generators(generator, shape[0])
            grid = self.grid(denoiser.sde, self.steps)
            return prior_state(denoiser, shape, grid[0].item(), generator), grid
        if start is not None and shape is None:
            check_generators(generator, len(start[0]))
            u, s = observed_state(denoiser.sde, *start)
            return u, self.grid(denoiser.sde, self.steps, s)
        raise ValueError("give either shape (to start from the prior) or start=(x_t, t), got both or neither.")

    def integrate(
        self,
        denoise: Denoise,
        u: Tensor,
        grid: Tensor,
        noise: Noise,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        r"""Runs the steps over a grid of noise ratios, (n + 1,), in EDM coordinates; upward jumps add noise."""
        memory = None
        count = range(len(grid) - 1)
        bar = progress_bar(count, description="sampling", unit="step") if progress else count
        for i, (s, n) in zip(bar, pairwise(grid.tolist()), strict=True):
            if n > s:
                u, memory = u + math.sqrt(n**2 - s**2) * noise(u), None
            else:
                u, memory = self.step(denoise, u, s, n, noise, memory)
            if callback is not None:
                callback(i, n, u, getattr(denoise, "last", u))
        return u


class Bound:
    r"""D(u, s) with the label bound, remembering its last output and counting its calls."""

    def __init__(self, denoiser: DenoiserLike, label: Tensor | None) -> None:
        self.denoiser, self.label, self.calls = denoiser, label, 0
        self.last: Tensor | None = None
        self.sde = denoiser.sde
        self.takes_next = takes_next(denoiser)
        self.is_steep = getattr(denoiser, "is_steep", False)

    def __call__(self, u: Tensor, s: float, *, next_s: float | None = None) -> Tensor:
        self.calls += 1
        if self.label is None and next_s is None:
            denoised = self.denoiser(u, s)
        else:
            denoised = jump(self.denoiser, u, s, self.label, next_s)
        self.last = denoised
        return denoised


class FlowMapDenoise(Denoise, Protocol):
    r"""D(u, s, r) inside a sampler."""

    def __call__(self, u: Tensor, s: float, /, *, next_s: float | None = None) -> Tensor:
        r"""D(u, s, next_s), (B, *S)."""
        ...


def towards(denoise: Denoise, u: Tensor, s: float, r: float) -> Tensor:
    r"""D of a jump from noise ratio s to r: D(u, s, r) of a flow map, which makes it exact; D(u, s) of others."""
    if not takes_next(denoise):
        return denoise(u, s)
    return cast(FlowMapDenoise, denoise)(u, s, next_s=r)


class CountingZeroDenoiser:
    r"""Returns zeros and counts calls; for dry runs.

    Args:
        sde: the process.
    """

    def __init__(self, sde: SDE) -> None:
        self.sde, self.calls = sde, 0

    def __call__(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        self.calls += 1
        return torch.zeros_like(u)


def check_suits(sampler: Sampler, denoiser: object) -> None:
    r"""Refuses a consistency function in a sampler that takes it for a posterior mean."""
    if getattr(denoiser, "is_consistency", False) and not sampler.takes_consistency:
        raise ValueError(
            f"sampler must be Consistency for a consistency function, got {type(sampler).__name__}, which takes D for "
            "a mean. Choose sampler=consistency."
        )


def _default_noise(generator: Generators) -> Noise:
    return lambda u: randn(u.shape, generator, u.dtype, u.device)
