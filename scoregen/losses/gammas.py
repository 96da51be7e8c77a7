r"""Gamma and Beta draws on the device, by a fixed number of keyed normal and uniform draws.

A Gamma(k + 1) variable is proposed as d v with v = (1 + c z)^3, d = k + 2/3, c = 1/sqrt(9 d), and accepted with
probability .95 or more (Marsaglia and Tsang). Each pixel has six proposals and takes the first one that is accepted, so
that no draw depends on another pixel and nothing is read by the host. All six fail with probability 2e-8 at most; then
the middle d is taken. Gamma(k) = Gamma(k + 1) U^{1/k}, in logarithms, since U^{1/k} of a small k is 0 in float32.

Reference: Marsaglia, Tsang (2000), A simple method for generating gamma variables, ACM TOMS 26, 363.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from scoregen.rng import Generators, rand, randn
from scoregen.sde.path import as_time

_PROPOSALS = 6


def log_gammas(shape: Tensor, size: Sequence[int], generator: Generators, dtype: torch.dtype) -> Tensor:
    r"""Logarithms of Gamma(shape, 1) draws.

    Args:
        shape: (B,), > 0, on the device of the draws. size: (B, *S). generator: as in `rng.rand`. dtype: of the draws.

    Returns:
        (B, *S).
    """
    place = shape.device
    d = (as_time(shape) + 2 / 3).to(dtype).reshape(-1, *[1] * (len(size) - 1))
    c = (9 * d).rsqrt()
    found = d.log().expand(tuple(size))
    open_ = torch.ones(tuple(size), dtype=torch.bool, device=place)
    tiny = torch.finfo(dtype).tiny
    for _ in range(_PROPOSALS):
        z, u = randn(size, generator, dtype, place), rand(size, generator, dtype, place)
        v = (1 + c * z) ** 3
        log_v = v.clamp_min(tiny).log()
        accepted = (v > 0) & (u.log() < z.square() / 2 + d * (1 - v + log_v))
        found = torch.where(open_ & accepted, d.log() + log_v, found)
        open_ = open_ & ~accepted
    below = torch.log1p(-rand(size, generator, dtype, place)) / shape.to(dtype).reshape(d.shape)
    return found + below


def log_shares(first: Tensor, second: Tensor, size: Sequence[int], generator: Generators, dtype: torch.dtype) -> Tensor:
    r"""log b and log(1 - b) of b ~ Beta(first, second), (2, B, *S); arguments as `log_gammas`."""
    parts = [log_gammas(shape, size, generator, dtype) for shape in (first, second)]
    pair = torch.stack(parts)
    return pair - torch.logaddexp(pair[0], pair[1])
