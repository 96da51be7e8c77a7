r"""An affine denoiser, a consistency function in closed form and data, for the tests of consistency."""

import torch
from oracles import Independent

from scoregen.sde import EDM
from scoregen.sde.path import as_time, expand

QUANTILE = torch.tensor([0.001, 0.3, 0.62, 0.9, 0.9999])


class Affine:
    r"""D = w u/(1 + s) + .1: not u at s = 0, so that the rule for r = 0 shows."""

    def __init__(self, weight=1.0, sde=None):
        self.weight, self.sde, self.calls = weight, sde or EDM(), []

    def __call__(self, u, s, label=None):
        self.calls.append((u, s, label))
        return self.weight * u / (1 + expand(as_time(s), u)) + 0.1


class Flow(Independent):
    r"""The exact consistency function of an independent normal law."""

    def __call__(self, u, s, label=None):
        s2 = torch.as_tensor(s, dtype=u.dtype).reshape(-1, *[1] * (u.ndim - 1)) ** 2
        return self.mean + (self.var / (self.var + s2)).sqrt() * (u - self.mean)


def data(n=5):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
