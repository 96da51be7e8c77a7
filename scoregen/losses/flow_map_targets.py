r"""What a jump of a flow map is trained towards: its own law, with the network's present values put in.

With tau = s/(c + s) for any c, m between s and r, and tau_m = tau_r + f (tau_s - tau_r):

    D(u, s, r) = w D(u_m, m, r) + (1 - w) D(u, s, m),   w = (1 - r/m)/(1 - r/s) = f tau_s/tau_m       (composition)
    k D(u, s, r) = k D(u, s, s) - (1 - k) tau d/dtau D(u, s, r),   k = tau_r/tau_s                   (differential)

where u_m = D(u, s, m) + (m/s) (u - D(u, s, m)) and the derivative goes along the flow at fixed r. Both hold for r < s
and for r > s, and w lies in [0, 1].

Reference: Boffi, Albergo, Vanden-Eijnden (2025), arXiv 2505.18825; Geng et al. (2025), arXiv 2505.13447 and 2512.02012.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoregen.losses.jacobian import full_precision
from scoregen.sde.path import expand

_PARTS = (0.1, 0.9)  # where a jump may be cut in two, f
_LONGEST = 3.0  # root mean square of noise, of its elements' deviation

FlowMapCall = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (u, s, r or None) -> D, label and dropout bound


@dataclass(frozen=True)
class Points:
    r"""Noisy points of some samples.

    Args:
        y: data in chart coordinates, (N, *S). u: y + s eps. s: noise ratios, (N,). label: (N,) or None.
    """

    y: Tensor
    u: Tensor
    s: Tensor
    label: Tensor | None


@dataclass(frozen=True)
class JumpBatch(Points):
    r"""Jumps from noisy points.

    Args:
        r: noise ratios that they go to, (N,), 0 for the data. draw: uniform in [0, 1), (N,). c: of tau = s/(c + s).
    """

    r: Tensor
    draw: Tensor
    c: float


def progressive(denoise: FlowMapCall, jumps: JumpBatch) -> Tensor:
    r"""The jump as two shorter ones, cut at a random level between: the composition. Two calls."""
    u, s, c = jumps.u, jumps.s, jumps.c
    tau_s, tau_r = s / (c + s), jumps.r / (c + jumps.r)
    f = _PARTS[0] + (_PARTS[1] - _PARTS[0]) * jumps.draw
    tau_m = tau_r + f * (tau_s - tau_r)
    m = c * tau_m / (1 - tau_m)
    first = denoise(u, s, m)
    u_m = first + expand(m / s, u) * _plausible(u - first, s)
    second = denoise(u_m, m, jumps.r)
    return torch.lerp(first, second, expand(f * tau_s / tau_m, u))


def _plausible(noise: Tensor, s: Tensor) -> Tensor:
    r"""s eps, shortened to 3 s sqrt(d) where it is longer than noise can be.

    Jumps to more noise feed the network its own noise; a network that gives too much would be led ever further off.
    """
    length = torch.linalg.vector_norm(noise.flatten(1), dim=1) / noise[0].numel() ** 0.5
    return noise * expand((_LONGEST * s.to(length) / length).clamp_max(1.0), noise)


def meanflow(denoise: FlowMapCall, jumps: JumpBatch, h: float = 0.01) -> Tensor:
    r"""y_0 in place of D(u, s, s) in the differential law, so that its mean over y_0 is that law. Four calls.

        T = y_0 + (1 - k) (D(u, s, r) - D(u, s, s) - tau dD/dtau) for k <= 1,   y_0 + (1 - 1/k) tau dD/dtau for k > 1

        The derivative is a central difference at s e^h and s e^-h, computed in full precision.

    Args:
        denoise, jumps: the network, and its jumps. h: half the difference of log s.
    """
    u, s, r, c = jumps.u, jumps.s, jumps.r, jumps.c
    k = r * (c + s) / (s * (c + r))
    with full_precision(u.device.type):
        here, there = denoise(u, s, None), denoise(u, s, r)
        ends = []
        for sign in (1, -1):
            moved = s * torch.exp(torch.full_like(s, sign * h))
            ends.append(denoise(u + expand(moved / s - 1, u) * (u - here), moved, r))
    change = expand((c + s) / (2 * h * c), u) * (ends[0] - ends[1])  # tau dD/dtau
    down = jumps.y + expand(1 - k, u) * (there - here - change)
    up = jumps.y + expand(1 - 1 / k.clamp_min(1), u) * change
    return torch.where(expand(k, u) <= 1, down, up)
