r"""A denoiser that is told the next level, for the tests of flow maps: an affine one, and data for it."""

import torch

from scoregen.sde import EDM
from scoregen.sde.path import as_time, expand

QUANTILE = torch.tensor([0.001, 0.3, 0.62, 0.9, 0.9999, 0.5, 0.4])


def data(n=7):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Affine:
    r"""D = w u/(1 + s + .3 r) + .1, told r."""

    takes_next, num_classes, sigma_data = True, None, 0.5

    def __init__(self, weight=1.0, sde=None):
        self.weight, self.sde, self.calls = weight, sde or EDM(), []

    def __call__(self, u, s, label=None, *, next_s=None):
        s = as_time(s).expand(len(u))
        r = s if next_s is None else as_time(next_s)
        self.calls.append((u, s, label, r, torch.is_grad_enabled()))
        return self.weight * u / (1 + expand(s, u) + 0.3 * expand(r, u)) + 0.1
