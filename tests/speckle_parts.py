r"""Speckled scenes of constant denoisers, for the tests of splitting."""

import numpy as np
import torch
from torch import nn

from scoregen.rng import generator
from scoregen.sde import EDM, Multiplicative

LOG = Multiplicative(EDM(0.002, 20.0), offset=0.0)


def intensities(x: torch.Tensor, looks: float, seed: int = 0) -> torch.Tensor:
    draws = np.random.default_rng(seed).gamma(looks, 1 / looks, tuple(x.shape))
    return x * torch.from_numpy(draws)


def parts(found, sde=LOG):
    r"""The intensities y1 and y2 whose coordinates, free of bias, a split gives; without their biases put back."""
    chart = sde.chart.as_log()
    return [((y - chart.shift) / chart.rate).exp() for y in (found.u, found.target)]


class Model(nn.Module):
    r"""D of a function of (u, s), with two parameters that a gradient is taken of."""

    num_classes, sigma_data = None, 0.5

    def __init__(self, function, sde=LOG) -> None:
        super().__init__()
        self.function, self.sde = function, sde
        self.constant, self.slope = (nn.Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(2))

    def forward(self, u, s, label=None):
        return self.function(u, s) + self.constant + self.slope * u


def complex_speckle(scene: torch.Tensor, seed: int = 0) -> torch.Tensor:
    g = generator(seed)
    real, imaginary = (torch.randn(scene.shape, generator=g, dtype=torch.float64) for _ in range(2))
    return torch.complex(real, imaginary) * (scene / 2).sqrt()
