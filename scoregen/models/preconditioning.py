r"""How a denoiser scales its network, by what the network estimates, and how it tells the network the noise.

The tables of `scoregen.models.denoiser`, as functions of the noise ratio s: `PREDICTIONS` gives (c_in, c_skip, c_out),
and `TIMES` gives c_noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from scoregen.sde.discrete import DiscretePath
from scoregen.sde.process import SDE

Scales = tuple[Tensor, Tensor, Tensor]  # c_in, c_skip, c_out


def _edm(s: Tensor, sd: float, least: float) -> Scales:
    square = s**2 + sd**2
    root = square.sqrt()
    return 1 / root, sd**2 / square, s * sd / root


def _x0(s: Tensor, sd: float, least: float) -> Scales:
    return (s**2 + sd**2).rsqrt(), torch.zeros_like(s), torch.ones_like(s)


def _eps(s: Tensor, sd: float, least: float) -> Scales:
    return (s**2 + sd**2).rsqrt(), torch.ones_like(s), -s


def _v(s: Tensor, sd: float, least: float) -> Scales:
    return (s**2 + sd**2).rsqrt(), 1 / (1 + s**2), -s / (1 + s**2).sqrt()


def _flow(s: Tensor, sd: float, least: float) -> Scales:
    return 1 / (1 + s), 1 / (1 + s), -s / (1 + s)


def _consistency(s: Tensor, sd: float, least: float) -> Scales:
    above = (s - least).clamp_min(0)
    root = (s**2 + sd**2).sqrt()
    return 1 / root, sd**2 / (above**2 + sd**2), above * sd / root


PREDICTIONS: dict[str, Callable[[Tensor, float, float], Scales]] = {
    "edm": _edm,
    "x0": _x0,
    "eps": _eps,
    "v": _v,
    "flow": _flow,
    "consistency": _consistency,
}


def _log_time(s: Tensor, sde: SDE) -> Tensor:
    return s.log() / 4


def _index_time(s: Tensor, sde: SDE) -> Tensor:
    assert isinstance(sde, DiscretePath)  # checked by the constructor
    return sde.index_of(s)


def _flow_time(s: Tensor, sde: SDE) -> Tensor:
    return s / (1 + s)


TIMES: dict[str, Callable[[Tensor, SDE], Tensor]] = {"log": _log_time, "index": _index_time, "flow": _flow_time}
