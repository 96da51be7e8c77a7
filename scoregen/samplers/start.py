r"""Where a sampler starts, u = y_0 + s eps at its first level, and the checks of what a call is given."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scoregen.keys import Keys
from scoregen.models.protocol import DenoiserLike
from scoregen.rng import Generators, randn
from scoregen.sde.path import as_time, readable
from scoregen.sde.process import SDE

_LABEL_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8)


def state_options(denoiser: object) -> dict[str, Any]:
    r"""dtype (at least float32) and device of a denoiser's parameters; torch's defaults for one without."""
    parameters = denoiser.parameters() if hasattr(denoiser, "parameters") else iter(())
    first = next(iter(parameters), None)
    if first is None:
        return {"dtype": torch.get_default_dtype(), "device": torch.get_default_device()}
    return {"dtype": torch.promote_types(first.dtype, torch.float32), "device": first.device}


def prior_moments(sde: SDE, s: float, like: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and standard deviation of u = y_0 + s eps from the moments that the process knows (0 unless set)."""
    mean, var = sde.moments(like.device)
    return mean.to(like.dtype), (var + s**2).sqrt().to(like.dtype)


def prior_state(denoiser: DenoiserLike, shape: tuple[int, ...], s: float, generator: Generators) -> Tensor:
    r"""u ~ N(mean, var + s^2) with the moments of `prior_moments`, (B, *S)."""
    sde = denoiser.sde
    shape = (shape[0], *sde.chart.shape_of(shape[1:]))
    eps = randn(shape, generator, **state_options(denoiser))
    if sde.data_mean.ndim and tuple(sde.data_mean.shape) != tuple(shape[1:]):
        raise ValueError(
            f"shape must be (B, {', '.join(map(str, sde.data_mean.shape))}), the shape of the moments of the data that "
            f"the process was given, got {tuple(shape)}."
        )
    mean, std = prior_moments(sde, s, eps)
    return mean + std * eps


def observed_state(sde: SDE, x_t: Tensor, t: Tensor | float) -> tuple[Tensor, float]:
    r"""(u, s) of noisy data x_t (B, *S) at a time t that all of the batch shares."""
    t = as_time(t).cpu()
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
    if not sde.chart.elementwise:
        raise ValueError(
            "start must be None for a process of latents: noise on images is not noise on their latents. Use a model "
            "of pixels, or encode the image."
        )
    if sde.chart.as_affine() is None:
        x_t = _above_floor(sde, x_t)
    u, s = sde.to_u(x_t, t)
    return u, s.item()


def _above_floor(sde: SDE, x_t: Tensor) -> Tensor:
    r"""Refuses values at the lowest end of a log chart, which stand for all that are lower; on an accelerator nan."""
    floor = sde.to_chart(sde.from_chart(torch.full_like(x_t, -math.inf)))
    below = sde.to_chart(x_t) <= floor
    if not readable(x_t):
        return torch.where(below, math.nan, x_t)
    cut = int(below.sum())
    if cut:
        raise ValueError(
            f"x_t must be inside the range of its chart, got {cut} of {x_t.numel()} values at its end, where "
            f"{x_t.dtype} rounds x + offset to 0 and their noise is lost. Use a smaller t, a larger offset or float64."
        )
    return x_t


def check_generators(generator: Generators, batch: int) -> None:
    r"""Refuses a list of generators that has not one for each sample."""
    if generator is None or isinstance(generator, (torch.Generator, Keys)):  # keys refuse another number themselves
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


def check_learned(denoiser: DenoiserLike, s: float) -> None:
    r"""Refuses a denoiser that did not learn the noise ratio s, for draws that start there or pass it."""
    least = getattr(denoiser, "least_s", 0.0)
    if least > s:
        raise ValueError(
            f"samples need a denoiser of all noise levels, and this one learned noise ratios from {least:.3g} on, as "
            "those that are trained on noisy images alone do. Take its mean (samples=0), or train on clean images."
        )
