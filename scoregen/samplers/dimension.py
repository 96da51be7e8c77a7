r"""The local dimension of data, by the noise that a denoiser can tell from them.

    dim_s(u) = tr dD/du + |u - D(u, s)|^2 / s^2 = n + d log p_s(u) / d log s

p_s is the law of y_0 + s eps, n the numbers of a sample. At u = y_0 on a smooth set of d dimensions it tends to d as s
falls, and to n where the law has a density at the scale s. It is the same for every path, since D is.

Reference: Kamkari et al. (2024), arXiv 2406.03537 (FLIPD); Tempczyk et al. (2022), arXiv 2206.14882 (LIDL).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoregen import checks
from scoregen.models.protocol import DenoiserLike, check_mean
from scoregen.rng import Generators
from scoregen.samplers.grids import check_ratios
from scoregen.samplers.likelihood import divergence_of, with_trace
from scoregen.samplers.start import check_label

LEVELS = 8


@dataclass(frozen=True)
class LocalDimension:
    r"""The dimension of a batch at L noise ratios; look where the curve is flat, never at one level.

    Attributes:
        value: dim_s, (B, L).
        trace: its part tr dD/du, (B, L); may be negative for a network.
        residual: its part |u - D|^2 / s^2, (B, L); larger on points that were not learnt than on those that were.
        standard_error: of value over the random probes, (B, L); 0 for the exact divergence, nan for one probe.
        s: the noise ratios, (L,), float64.
        calls: denoiser calls.
    """

    value: Tensor
    trace: Tensor
    residual: Tensor
    standard_error: Tensor
    s: Tensor
    calls: int


def local_dimension(
    denoiser: DenoiserLike,
    x: Tensor,
    s: float | Sequence[float] | None = None,
    *,
    label: Tensor | None = None,
    probes: int | None = None,
    generator: Generators = None,
) -> LocalDimension:
    r"""The local dimension of the data around each point, at one or several scales.

        Noise of size h in the data raises it to n below s = h. EDM's preconditioning pulls it to n at small s unless
        the network is exact, so a value near n at one small level proves nothing.

    Args:
        denoiser: D(u, s) of a process.
        x: data (B, *S) in its own units, without noise. On a log chart it is the dimension of log x.
        s: noise ratios within the range of the process; None: 8 in equal steps of log s, from 2 s_min to half of the
            denoiser's sigma_data.
        label: (B,) integers, for the data of a class.
        probes: as in `log_likelihood`: 0 for the exact trace, which is the default up to 64 numbers a sample, else two
            Hutchinson probes. generator: for the probes.

    Returns:
        LocalDimension.

    Raises:
        ValueError: levels outside the range of the process, or none given for a denoiser without sigma_data.
    """
    levels = _levels(denoiser, s)
    check_label(denoiser, label, len(x))
    check_mean(denoiser)
    with torch.no_grad():
        y = denoiser.sde.to_chart(x)
        trace_of, count = divergence_of(y, probes, generator)
        traces, residuals = [], []
        for level in levels:
            denoised, trace = with_trace(denoiser, y, level, label, trace_of)
            traces.append(trace)
            residuals.append((y - denoised).flatten(1).square().sum(1) / level**2)
        columns, residual = torch.stack(traces, 1), torch.stack(residuals, 1)  # (B, L, probes), (B, L)
        trace = columns.mean(2)
        error = columns.std(2) / math.sqrt(count) if count > 1 else torch.full_like(trace, math.nan if count else 0.0)
    at = torch.tensor(levels, dtype=torch.float64)
    return LocalDimension(trace + residual, trace, residual, error, at, len(levels))


def usual_levels(denoiser: DenoiserLike) -> list[float]:
    r"""8 noise ratios in equal steps of log s, from 2 s_min to half of the denoiser's sigma_data.

    Raises:
        ValueError: it has no sigma_data.
    """
    sigma_data = getattr(denoiser, "sigma_data", None)
    if sigma_data is None:
        raise ValueError("s is None, but this denoiser has no sigma_data to choose levels by. Give s=[...].")
    low, high = 2 * denoiser.sde.s_min, float(sigma_data) / 2
    checks.increasing(0, **{"2 s_min": low, "sigma_data / 2": high})
    found: list[float] = torch.logspace(math.log10(low), math.log10(high), LEVELS, dtype=torch.float64).tolist()
    return found


def _levels(denoiser: DenoiserLike, s: float | Sequence[float] | None) -> list[float]:
    if s is None:
        return usual_levels(denoiser)
    levels = [float(level) for level in (s if isinstance(s, Sequence) else [s])]
    checks.positive(**{f"s[{k}]": level for k, level in enumerate(levels)})
    check_ratios(denoiser.sde, levels, "s")
    return levels
