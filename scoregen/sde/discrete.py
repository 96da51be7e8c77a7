r"""The path of a discrete-time DDPM, made continuous.

    alpha_k = sqrt(abar_k),   sigma_k = sqrt(1 - abar_k),   s_k = sigma_k/alpha_k,      k = 0 ... N - 1

abar_k is what diffusers calls `alphas_cumprod`; it is alpha^2. Between the levels log s is linear in k, and t = k/(N -
1). A last abar of 0 (zero terminal SNR) has no s; it is taken as 2^-48, whose s = 1.7e7 leaves nothing of the data in
float32.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from scoregen.sde.chart import Chart
from scoregen.sde.path import Table, as_time
from scoregen.sde.process import SDE

_NOTHING = 2.0**-48  # alpha^2 where nothing of the data is left


class DiscretePath(SDE):
    r"""The variance-preserving path through the levels of a DDPM.

    Args:
        alphas_cumprod: abar_k, (N,), strictly decreasing inside (0, 1); the last may be 0.
        chart: data to model coordinates; `Affine(2, -1)` for images in [0, 1] and a model of [-1, 1].

    Raises:
        ValueError: fewer than two levels, or levels that do not decrease inside (0, 1).
    """

    def __init__(self, alphas_cumprod: Tensor | Sequence[float], chart: Chart | None = None) -> None:
        super().__init__(chart)
        abar = as_time(alphas_cumprod).flatten().cpu()
        if len(abar) and abar[-1] == 0:
            abar = torch.cat([abar[:-1], abar[-2:-1].clamp(max=4 * _NOTHING) / 4])
        if len(abar) < 2 or not bool(((abar > 0) & (abar < 1)).all() and (abar.diff() < 0).all()):
            raise ValueError(
                "alphas_cumprod must hold at least two values that decrease strictly inside (0, 1), got "
                f"{len(abar)} values{_ends(abar)}. The last may be 0 (zero terminal SNR)."
            )
        self.alphas_cumprod = abar
        self._levels = Table(((1 - abar) / abar).log() / 2)

    @classmethod
    def from_scheduler(cls, scheduler: object, chart: Chart | None = None) -> Self:
        r"""The path of a diffusers scheduler.

        Args:
            scheduler: one with `alphas_cumprod`, or the config (a mapping) of one.
            chart: data to model coordinates.

        Raises:
            TypeError: for a scheduler without `alphas_cumprod`, of another process than DDPM.
        """
        if isinstance(scheduler, Mapping):
            from diffusers import DDPMScheduler

            read: Any = DDPMScheduler.from_config  # diffusers leaves it without types
            scheduler = read(dict(scheduler))
        if not hasattr(scheduler, "alphas_cumprod"):
            raise TypeError(
                f"scheduler must have alphas_cumprod, the levels of a DDPM, got {type(scheduler).__name__}. "
                "scoregen.models.from_diffusers(model, scheduler) knows EDM, consistency and flow-matching schedulers."
            )
        abar = as_time(scheduler.alphas_cumprod).clone()
        if getattr(scheduler, "config", {}).get("rescale_betas_zero_snr"):
            abar[-1] = 0.0  # some of its schedulers have put 2**-24 there, which may be above the level before
        return cls(abar, chart)

    @property
    def log_levels(self) -> Tensor:
        r"""log s_k, (N,), float64 on the CPU."""
        return self._levels.values

    def noise_ratio(self, t: Tensor | float) -> Tensor:
        k = as_time(t) * (len(self.log_levels) - 1)
        levels = self._levels.on(k.device)
        below = k.detach().floor().clamp(0, len(levels) - 2).long()
        low, high = levels[below], levels[below + 1]
        return (low + (k - below) * (high - low)).exp()

    def alpha(self, t: Tensor | float) -> Tensor:
        return (1 + self.noise_ratio(t) ** 2).rsqrt()

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.noise_ratio(t) * self.alpha(t)

    def index_of(self, s: Tensor | float) -> Tensor:
        r"""The (fractional) index k that the network takes at noise ratio s, within 0 and N - 1; shaped as s."""
        log_s = as_time(s).log()
        levels = self._levels.on(log_s.device)
        log_s = log_s.clamp(self.log_levels[0].item(), self.log_levels[-1].item())
        above = torch.searchsorted(levels, log_s).clamp(1, len(levels) - 1)
        low, high = levels[above - 1], levels[above]
        return above - 1 + (log_s - low) / (high - low)

    def _time_of(self, s: Tensor) -> Tensor:
        return self.index_of(s) / (len(self.log_levels) - 1)


def _ends(values: Tensor) -> str:
    return f" from {values[0].item():.4g} to {values[-1].item():.4g}" if len(values) else ""
