r"""Despecklers from speckled images alone: an intensity is split into two with independent speckle.

    I = X n, n ~ Gamma(L, 1/L);  b ~ Beta(a L, (1 - a) L) for each pixel
    y1 = I (1 - b)/(1 - a),  y2 = I b/a        independent given X, of (1 - a) L and a L looks, both of mean X

In the coordinates of the process, y = rate log X + shift, with L1 = (1 - a) L, L2 = a L:

    u = rate (log y1 - psi(L1) + ln L1) + shift,   s1 = rate sqrt(psi_1(L1)),
    t = rate (log y2 - psi(L2) + ln L2) + shift,   of mean y_0 and deviation rate sqrt(psi_1(L2))

so the minimiser is E[log X | y1], which `Despeckler` and `restore` use. Real and imaginary part of a single-look
complex image are the split a = 1/2 of its intensity: y1 = 2 Re^2, y2 = 2 Im^2 (MERLIN). They stay independent where
neighbouring pixels are correlated; the two parts of a Beta split do not.

Data are intensities: as in `restore`, the offset of the chart is not added to them.

Reference: Monroy, Bacca, Tachella (2025), arXiv 2412.04648; Dalsasso, Denis, Tupin (2022), arXiv 2110.13148 (MERLIN).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scoregen import checks
from scoregen.losses.data_units import squared_in_data_units
from scoregen.losses.gammas import log_shares
from scoregen.losses.speckle_correlation import SpeckleCorrelation
from scoregen.losses.splitting import Halves, Splitting, check_levels
from scoregen.losses.weightings import Weighting
from scoregen.rng import Generators, rand
from scoregen.sde.chart import Logarithm
from scoregen.sde.multiplicative import logarithm
from scoregen.sde.path import as_time, expand
from scoregen.sde.process import SDE

_REMEDY = "Train with sde=multiplicative (+experiment=despeckle_speckled is an example)."


class SpeckleSplit(Splitting):
    r"""Training of despecklers on speckled intensities (B, *S), or on complex single-look images.

        Of complex images the squared real part predicts the squared imaginary part, or the reverse; their fraction is
        1/2, and the network learns half a look alone.

    Args:
        looks: looks of the training images, L > 0; 1 for complex ones.
        split: smallest and largest fraction of the looks that goes to the target. Narrow ones learn the looks of the
            data best; [0.1, 0.9] learns a tenth of them too.
        power: 0 counts errors in chart coordinates, 1 in intensities, as `DataUnitMatching`. high: as there.
        subsample: 2 takes every second pixel of every second row, from a random first one, where speckle is correlated.
        floor: darker intensities, zeros too, are raised to it; None: they are an error.
        label_dropout: probability of training a sample without its label. weighting: w(s); EDM's unless given.

    Raises:
        ValueError: values out of range; in `begin`, noise beyond the process; in `forward`, intensities that are not
            > 0 (on an accelerator the loss is nan instead). TypeError: a model of an additive process.
    """

    def __init__(
        self,
        looks: float,
        split: Sequence[float] = (0.15, 0.35),
        power: float = 1.0,
        high: float = 1.0,
        subsample: int = 1,
        floor: float | None = None,
        label_dropout: float = 0.1,
        weighting: Weighting | None = None,
    ) -> None:
        super().__init__(split, label_dropout, weighting)
        checks.positive(looks=looks)
        checks.inside(0, 1, power=power)
        checks.finite(high=high)
        checks.whole(1, subsample=subsample)
        if floor is not None:
            checks.positive(floor=floor)
        self.looks, self.power, self.high = float(looks), power, high
        self.subsample, self.floor = int(subsample), floor
        self._correlation = SpeckleCorrelation(_variance(as_time(looks)).item(), self.subsample)

    def least_s(self, sde: SDE) -> float:
        return _noise_ratio(sde, self.looks * (1 - self.split[0]))

    def begin(self, model: Any) -> None:
        sde = model.sde
        most = _noise_ratio(sde, self._fewest())
        check_levels(
            sde,
            self.least_s(sde),
            most,
            f"Inputs have {self._fewest():.3g} to {self.looks * (1 - self.split[0]):.3g} looks. Give a sigma_max of "
            f"the process above {most:.3g} (sde.base.sigma_max), or a lower split.",
        )

    def _fewest(self) -> float:
        share = 1 - self.split[1]
        return self.looks * (min(share, 0.5) if self.looks == 1 else share)  # complex images are split in halves

    def prepared(self, x: Tensor, generator: Generators) -> Tensor:
        if self.subsample > 1:
            x = _every(self.subsample, x, generator)
        if x.is_complex():
            return x
        x = x if self.floor is None else x.clamp_min(self.floor)
        if x.device.type == "cpu":
            _check_positive(x)
        self._correlation.see(x)
        return x

    def halves(self, sde: SDE, x: Tensor, fraction: Tensor, generator: Generators) -> Halves:
        chart = logarithm(sde, type(self).__name__, _REMEDY)
        fraction = as_time(fraction)
        if x.is_complex():
            fraction = torch.full_like(fraction, 0.5)
            kept, given = self._parts(x, generator)
        else:
            shares = log_shares(self.looks * fraction, self.looks * (1 - fraction), x.shape, generator, x.dtype)
            given, kept = x.log() + shares[0], x.log() + shares[1]
        first, second = self.looks * (1 - fraction), self.looks * fraction
        u, s = _standardised(chart, kept - expand((1 - fraction).log(), kept), first)
        target, noise = _standardised(chart, given - expand(fraction.log(), given), second)
        return Halves(u, s, target, noise)

    def _parts(self, x: Tensor, generator: Generators) -> tuple[Tensor, Tensor]:
        r"""Logarithms of the squares of the real and the imaginary part, in a random order for each image."""
        if self.looks != 1:
            raise ValueError(
                f"looks must be 1 for complex images, whose speckle is of a single look, got {self.looks}."
            )
        swap = expand(rand((len(x),), generator, x.real.dtype, x.device), x.real) < 0.5
        pair = torch.where(swap, x.imag, x.real), torch.where(swap, x.real, x.imag)
        least = torch.finfo(x.real.dtype).tiny if self.floor is None else self.floor / 2
        log_first, log_second = (part.square().clamp_min(least).log() for part in pair)
        return log_first, log_second

    def squared_error(self, sde: SDE, denoised: Tensor, target: Tensor) -> Tensor:
        return squared_in_data_units(sde, denoised, target, self.power, self.high)

    def metrics(self) -> dict[str, float]:
        return self._correlation.metrics()


def _noise_ratio(sde: SDE, looks: float) -> float:
    return logarithm(sde, SpeckleSplit.__name__, _REMEDY).rate * math.sqrt(_variance(as_time(looks)).item())


def _variance(looks: Tensor) -> Tensor:
    variance: Tensor = torch.polygamma(1, looks)
    return variance


def _standardised(chart: Logarithm, log: Tensor, looks: Tensor) -> tuple[Tensor, Tensor]:
    r"""Log intensities of given looks (B,) without their bias, in model coordinates; their deviation there (B,)."""
    bias = torch.digamma(looks) - looks.log()
    return chart.rate * (log - expand(bias, log)) + chart.shift, chart.rate * _variance(looks).sqrt()


def _every(step: int, x: Tensor, generator: Generators) -> Tensor:
    r"""Every `step`-th pixel of every `step`-th row of images (B, C, H, W), from a random first one for each image."""
    if x.ndim != 4 or min(x.shape[-2:]) < step:
        raise ValueError(f"subsample={step} needs images (B, C, H, W) of that side at least, got {tuple(x.shape)}.")
    height, width = (side // step for side in x.shape[-2:])
    cells = x[..., : height * step, : width * step].reshape(*x.shape[:2], height, step, width, step)
    choices = cells.movedim((3, 5), (1, 2)).flatten(1, 2)  # (B, step^2, C, height, width)
    draws = (rand((len(x),), generator, torch.float32, x.device) * step**2).long().clamp_max(step**2 - 1)
    index = draws.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *choices.shape[2:])
    return choices.gather(1, index).squeeze(1)


def _check_positive(x: Tensor) -> None:
    bad = ~((x > 0) & x.isfinite())
    if bool(bad.any()):
        values = ", ".join(f"{v:.4g}" for v in x[bad][:3].tolist())
        raise ValueError(
            f"intensities must be finite and > 0, got {int(bad.sum())} of {x.numel()} that are not (first: {values}). "
            "Raise zeros to a floor, about half a step of the recording (loss.floor=0.002 for 8 bits)."
        )
