r"""Axes and numbers of one pixel, for the tests of split Gibbs."""

import torch

from scoregen.samplers.pixel_axis import LogAxis
from scoregen.sde import EDM, Affine, Multiplicative

D = torch.float64
SDES = {
    "log": Multiplicative(EDM(0.002, 3.0), offset=0.0),
    "offset": Multiplicative(EDM(0.002, 3.0), offset=0.02, data_range=(0.0, 1.0)),
    "affine": EDM(0.002, 3.0, chart=Affine(2.0, -1.0)),
}
SHARES = (torch.arange(400, dtype=D) + 0.5) / 400


def axis(name: str) -> LogAxis:
    return LogAxis.of(SDES[name], "a test")


def shares(like: torch.Tensor) -> torch.Tensor:
    r"""In place of random numbers: draws are then the quantiles of their law."""
    return SHARES.to(like)
