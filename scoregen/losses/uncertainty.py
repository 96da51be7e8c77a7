r"""A learned uncertainty u(s): the loss L at the noise ratio s becomes L e^{-u} + u.

It is least at u = log E[L given s], where every level counts the same: no weighting has to be guessed. In D its
minimiser stays E[y_0 given u], as under every weighting.
"""

import math

import torch
from torch import Tensor, nn

from scoregen.checks import whole
from scoregen.losses.noise_levels import normal_quantile


class Uncertainty(nn.Module):
    r"""u(s): a linear map of fixed Fourier features of log(s)/4, 0 at the start.

    Args:
        features: their number, >= 1. Frequencies are those of a standard normal law, at its quantiles.

    Raises:
        ValueError: features < 1.

    Reference: Karras et al. (2024), arXiv 2312.02696, equations 14 to 16 and 21.
    """

    frequency: Tensor
    phase: Tensor

    def __init__(self, features: int = 128) -> None:
        super().__init__()
        whole(1, features=features)
        self.features = int(features)
        self.weight = nn.Parameter(torch.zeros(features))
        number = torch.arange(features, dtype=torch.float64)
        frequency = 2 * math.pi * normal_quantile((number + 0.5) / features)
        phase = 2 * math.pi * (number * (math.sqrt(5) - 1) / 2 % 1)  # equidistributed
        self.register_buffer("frequency", frequency.float(), persistent=False)
        self.register_buffer("phase", phase.float(), persistent=False)

    def forward(self, s: Tensor) -> Tensor:
        r"""u (B,), at least float32, at noise ratios s (B,)."""
        place = (s.log() / 4).to(self.weight)
        waves = (place[:, None] * self.frequency + self.phase).cos()
        return (waves * self.weight).sum(1) * math.sqrt(2 / self.features)  # no product of matrices: autocast rounds it
