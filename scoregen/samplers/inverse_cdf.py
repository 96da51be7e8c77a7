r"""Draws from densities of one dimension, known up to a factor, for all pixels at once and without a loop that waits.

Two grids of 65 points find where a density lies. A third one says how to place 129 knots: half of them evenly, half by
the mass between its points. Between the knots log p is taken for linear, and its distribution function is inverted in
closed form. The distribution function of the draws is within 1e-3 of the exact one where a density has one scale, and
within .01 where it has a narrow mode and a wide tail.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LogDensity = Callable[..., Tensor]

_POINTS, _KNOTS = 65, 129
_NEGLIGIBLE = 40.0  # nats below the largest value from which on a density is left out
_FLAT = 1e-3  # a slope in nats below which a cell is taken for flat
_BLOCK = {"cpu": 1 << 13}  # pixels at a time, so that their grids stay in the cache
_ELSEWHERE = 1 << 20


def inverse_cdf(
    log_density: LogDensity, parameters: Sequence[Tensor], low: Tensor, high: Tensor, uniform: Tensor
) -> Tensor:
    r"""One draw from each of N densities.

    Args:
        log_density: log_density(v, *parameters) + constant, (N, P), for points v (N, P) and parameters (N, 1).
        parameters: of the densities, each of the shape of `low`.
        low, high: where all but a negligible part of each density lies, any shape.
        uniform: draws in [0, 1) of the same shape.

    Returns:
        Draws of that shape, between low and high.
    """
    columns = [x.reshape(-1, 1) for x in (low, high, uniform, *parameters)]
    size = _BLOCK.get(low.device.type, _ELSEWHERE)
    blocks = zip(*(torch.split(column, size) for column in columns), strict=True)
    return torch.cat([_draw(log_density, *block) for block in blocks]).reshape(low.shape)


def _draw(log_density: LogDensity, low: Tensor, high: Tensor, uniform: Tensor, *parameters: Tensor) -> Tensor:
    def at(knots: Tensor) -> Tensor:
        values = log_density(knots, *parameters)
        top = values.amax(1, keepdim=True)
        return (values - top).clamp_min(-4 * _NEGLIGIBLE)  # a minimum takes the place of -inf, whose slope is nan

    for _ in range(2):
        knots = _between(low, high, _POINTS)
        low, high = _support(knots, at(knots))
    even = _between(low, high, _POINTS)
    knots = _placed(even, at(even))
    return _quantile(knots, at(knots), uniform)


def _between(low: Tensor, high: Tensor, count: int) -> Tensor:
    r"""Evenly spread points from low to high (N, 1), both among them, (N, count)."""
    steps = torch.linspace(0, 1, count, dtype=low.dtype, device=low.device)
    return torch.lerp(low, high, steps)


def _support(knots: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    r"""The knots before the first and after the last one where a density is not negligible, (N, 1) each."""
    inside = (values > -_NEGLIGIBLE).to(torch.uint8)
    last = knots.shape[1] - 1
    first = (inside.argmax(1, keepdim=True) - 1).clamp_min(0)
    end = (last - inside.flip(1).argmax(1, keepdim=True) + 1).clamp_max(last)
    return knots.gather(1, first), knots.gather(1, end)


def _masses(knots: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    r"""Of densities whose logarithms (N, P) are linear between knots: slopes and masses of the cells, (N, P - 1)."""
    slope, width = values.diff(dim=1), knots.diff(dim=1)
    size = slope.abs().clamp_min(_FLAT)
    mass = width * torch.maximum(values[:, :-1], values[:, 1:]).exp() * -torch.expm1(-size) / size
    return slope, mass


def _placed(knots: Tensor, values: Tensor) -> Tensor:
    r"""More knots over the same range, as many by width as by mass, (N, 129)."""
    mass = _masses(knots, values)[1]
    share = mass / mass.sum(1, keepdim=True) + 1 / mass.shape[1]
    upto = share.cumsum(1)
    target = upto[:, -1:] * torch.linspace(0, 1, _KNOTS, dtype=upto.dtype, device=upto.device)
    cell = torch.searchsorted(upto, target).clamp_max(share.shape[1] - 1)
    rest = (target - upto.gather(1, cell)) / share.gather(1, cell) + 1
    start = knots.gather(1, cell)
    return start + rest.clamp(0, 1) * (knots.gather(1, cell + 1) - start)


def _quantile(knots: Tensor, values: Tensor, share: Tensor) -> Tensor:
    r"""Where a density has a share (N, 1) of its mass behind it, (N, 1)."""
    slope, mass = _masses(knots, values)
    upto = mass.cumsum(1)
    target = share * upto[:, -1:]
    cell = torch.searchsorted(upto, target).clamp_max(mass.shape[1] - 1)
    mass = mass.gather(1, cell).clamp_min(torch.finfo(mass.dtype).tiny)
    rest = ((target - upto.gather(1, cell)) / mass + 1).clamp(0, 1)
    start = knots.gather(1, cell)
    return start + _place(rest, slope.gather(1, cell)) * (knots.gather(1, cell + 1) - start)


def _place(share: Tensor, slope: Tensor) -> Tensor:
    r"""Where in [0, 1] a density exp(slope x) has a share of its mass behind it."""
    size = slope.abs().clamp_min(_FLAT)
    falling = torch.where(slope > 0, 1 - share, share)  # from its larger end
    place = -torch.log1p(falling * torch.expm1(-size)) / size
    place = torch.where(slope > 0, 1 - place, place)
    return torch.where(slope.abs() < _FLAT, share, place).clamp(0, 1)


REACH = 10.0  # deviations of a normal law within which its density falls by 50 nats
