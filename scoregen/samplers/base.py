r"""The sampler interface: from noise (or a noisy observation) to data through a denoiser D(u, s).

State is u = y_0 + s eps; a step goes from the noise ratio s to the next one. One implementation serves every process,
since the process enters only through its chart, its prior and its grid.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from scoregen.models.protocol import DenoiserLike
from scoregen.progress import progress as progress_bar
from scoregen.rng import Generators, randn
from scoregen.samplers.grids import Grid, Karras, check_grid, check_steps
from scoregen.sde.path import as_time
from scoregen.sde.process import SDE

Noise = Callable[[Tensor], Tensor]
Callback = Callable[[int, Tensor, Tensor, Tensor], None]
_LABEL_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8)


class Denoise(Protocol):
    r"""D(u, s) inside a sampler, with label and guidance bound."""

    @property
    def sde(self) -> SDE:
        r"""The process."""
        ...

    def __call__(self, u: Tensor, s: Tensor, /) -> Tensor:
        r"""E[y_0 | u], (B, *S), for u (B, *S) at the noise ratio s, ()."""
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
    """

    couples_batch = False

    def __init__(self, steps: int = 18, grid: Grid | None = None) -> None:
        self.steps = check_steps(steps)
        self.grid = Karras() if grid is None else check_grid(grid)

    @abstractmethod
    def step(self, denoise: Denoise, u: Tensor, s: Tensor, n: Tensor, noise: Noise, memory: Any) -> tuple[Tensor, Any]:
        r"""One step from noise ratio s to n < s.

        Args:
            denoise: D(u, s), label and guidance bound; `denoise.sde` is the process.
            u: state (B, *S).
            s, n: noise ratios, float64 scalars on the CPU; n = 0 on the last step.
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
            label: (B,) integers.
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
        if shape is not None and start is None:
            check_generators(generator, shape[0])
            grid = self.grid(denoiser.sde, self.steps)
            return prior_state(denoiser, shape, grid[0], generator), grid
        if start is not None and shape is None:
            check_generators(generator, len(start[0]))
            u, s = observed_state(denoiser.sde, *start)
            return u, self.grid(denoiser.sde, self.steps, s.item())
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
        for i in progress_bar(count, description="sampling", unit="step") if progress else count:
            s, n = grid[i], grid[i + 1]
            if n > s:
                u, memory = u + (n**2 - s**2).sqrt().to(u) * noise(u), None
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

    def __call__(self, u: Tensor, s: Tensor) -> Tensor:
        self.calls += 1
        denoised = self.denoiser(u, s) if self.label is None else self.denoiser(u, s, self.label)
        self.last = denoised
        return denoised


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


def _default_noise(generator: Generators) -> Noise:
    return lambda u: randn(u.shape, generator, u.dtype, u.device)


def state_options(denoiser: object) -> dict[str, Any]:
    r"""dtype (at least float32) and device of a denoiser's parameters; torch's defaults for one without."""
    parameters = denoiser.parameters() if hasattr(denoiser, "parameters") else iter(())
    first = next(iter(parameters), None)
    if first is None:
        return {"dtype": torch.get_default_dtype(), "device": torch.get_default_device()}
    return {"dtype": torch.promote_types(first.dtype, torch.float32), "device": first.device}


def prior_moments(sde: SDE, s: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and standard deviation of u = y_0 + s eps from the moments that the process knows (0 unless set)."""
    return sde.data_mean.to(like), (sde.data_var + s**2).sqrt().to(like)


def prior_state(denoiser: DenoiserLike, shape: tuple[int, ...], s: Tensor, generator: Generators) -> Tensor:
    r"""u ~ N(mean, var + s^2) with the moments of `prior_moments`, (B, *S)."""
    eps = randn(shape, generator, **state_options(denoiser))
    sde = denoiser.sde
    if sde.data_mean.ndim and tuple(sde.data_mean.shape) != tuple(shape[1:]):
        raise ValueError(
            f"shape must be (B, {', '.join(map(str, sde.data_mean.shape))}), the shape of the moments of the data that "
            f"the process was given, got {tuple(shape)}."
        )
    mean, std = prior_moments(sde, s, eps)
    return mean + std * eps


def observed_state(sde: SDE, x_t: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""(u, s) of noisy data x_t (B, *S) at a time t that all of the batch shares."""
    t = as_time(t)
    if t.numel() > 1 and not bool((t == t.flatten()[0]).all()):
        raise ValueError(
            f"t must be the same for the whole batch of a sampler call, got values from {t.min():.4g} to "
            f"{t.max():.4g}. Call the sampler once for each time."
        )
    t = t.flatten()[0]
    if not 0 < t <= 1 or not bool(sde.noise_ratio(t).isfinite()):
        raise ValueError(
            f"the time of start must lie in (0, 1], where {type(sde).__name__} has a finite noise ratio > 0, "
            f"got t={t.item():.6g}. For pure noise give shape=; at t = 0 there is nothing to remove."
        )
    x_t = x_t.to(torch.promote_types(x_t.dtype, torch.float32))
    if sde.chart.as_affine() is None:
        _check_above_floor(sde, x_t)
    return sde.to_u(x_t, t)


def _check_above_floor(sde: SDE, x_t: Tensor) -> None:
    r"""Refuses values at the lowest end of a log chart, which stand for all that are lower."""
    floor = sde.to_chart(sde.from_chart(x_t.new_full((), -math.inf)))
    cut = int((sde.to_chart(x_t) <= floor).sum())
    if cut:
        raise ValueError(
            f"x_t must be inside the range of its chart, got {cut} of {x_t.numel()} values at its end, where "
            f"{x_t.dtype} rounds x + offset to 0 and their noise is lost. Use a smaller t, a larger offset or float64."
        )


def check_generators(generator: Generators, batch: int) -> None:
    r"""Refuses a list of generators that has not one for each sample."""
    if generator is None or isinstance(generator, torch.Generator):
        return
    if not isinstance(generator, Sequence) or not all(isinstance(g, torch.Generator) for g in generator):
        raise TypeError(
            f"generator must be a torch.Generator or a list with one for each sample, got {generator!r}. For a seed "
            "give torch.Generator().manual_seed(seed)."
        )
    if len(generator) != batch:
        raise ValueError(
            f"generator must be one or a list of {batch}, one for each sample, got a list of {len(generator)}."
        )


def check_label(denoiser: object, label: Tensor | None, batch: int) -> None:
    r"""Refuses labels of the wrong number or outside 0..num_classes-1 (-1 is "no label")."""
    if label is None:
        return
    if not isinstance(label, Tensor):
        raise TypeError(f"label must be a tensor of {batch} integers, got {label!r}. Give torch.tensor([...]).")
    num_classes = getattr(denoiser, "num_classes", None)
    if num_classes is None and isinstance(denoiser, torch.nn.Module):
        raise ValueError(
            f"label must be None for an unconditional model, got labels of shape {tuple(label.shape)}. Train with "
            "labels first."
        )
    if label.shape != (batch,) or label.dtype not in _LABEL_TYPES:
        raise ValueError(
            f"label must be signed integers of shape ({batch},), -1 for no label, got {label.dtype} of shape "
            f"{tuple(label.shape)}. Give label.long()."
        )
    if num_classes is not None and not bool(((label >= -1) & (label < num_classes)).all()):
        raise ValueError(f"label must lie in 0..{num_classes - 1}, got values from {label.min()} to {label.max()}.")
