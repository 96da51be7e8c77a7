r"""How networks are told a number: its cosines and sines at several frequencies."""

import math

import torch
from torch import Tensor


def fourier_features(c_noise: Tensor, width: int) -> Tensor:
    r"""cos and sin of c_noise at width/2 frequencies from 1/4 to 16 in geometric steps, (B, width)."""
    frequencies = torch.logspace(-2, 4, width // 2, base=2.0, device=c_noise.device, dtype=c_noise.dtype)
    angles = c_noise[:, None] * frequencies * math.pi
    return torch.cat([angles.cos(), angles.sin()], dim=1)
