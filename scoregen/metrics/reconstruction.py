r"""The error of encoding an image to its noise and decoding it again, against the number of network calls.

Reference: Song, Meng, Ermon (2021), arXiv 2010.02502, section 5.4; Wang et al. (2004), IEEE Trans. Image Processing 13
(structural similarity).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scoregen.checks import whole
from scoregen.interruption import end_if_asked
from scoregen.metrics.distances import double
from scoregen.models import DenoiserLike
from scoregen.models.protocol import jump, takes_next
from scoregen.pictures import UNIT, Range, fractions
from scoregen.samplers.inversion import Solver, decode, encode
from scoregen.samplers.ode import RK4, Field, ODESolver


class DDIMInversion(ODESolver):
    r"""DDIM in either direction: u' = D + (n/s)(u - D) in equal steps of log s, one call each.

    Args:
        steps: number of steps, >= 1.
    """

    def __init__(self, steps: int = 50) -> None:
        whole(1, steps=steps)
        self.steps = int(steps)

    def __call__(self, field: Field, y: Tensor, start: float, end: float) -> Tensor:
        h = (end - start) / self.steps
        for i in range(self.steps):
            y = y + math.expm1(h) * field(start + i * h, y)  # the field is u - D
        return y


@dataclass(frozen=True)
class Reconstruction:
    r"""Errors of decode(encode(x)) against x, means over images, pixels as fractions of their range.

    Attributes:
        solver: name and steps. calls: number of calls of the network, both ways.
        mse: mean squared error; psnr: of each image, in dB, then the mean; ssim: structural similarity.
    """

    solver: str
    calls: int
    mse: float
    psnr: float
    ssim: float


def reconstruction_error(
    denoiser: DenoiserLike,
    x: Tensor,
    *,
    steps: int = 50,
    solver: Solver | None = None,
    label: Tensor | None = None,
    data_range: Range = UNIT,
) -> Reconstruction:
    r"""Encodes images to noise at s_max and decodes them again with the same solver.

    Args:
        denoiser: D(u, s) of a process.
        x: images (B, C, H, W) in the units of the data.
        steps: of DDIM in log s, each way, unless a solver is given.
        solver: any solver of the probability-flow ODE, or jumps of a flow map. label: (B,) or None, for both ways.
        data_range: range of the units; errors are those of fractions of it.
    """
    solver = DDIMInversion(steps) if solver is None else solver
    counted = _Counted(denoiser)
    back = decode(counted, encode(counted, x, label=label, solver=solver), label=label, solver=solver)
    x, back = fractions(x, data_range), fractions(back, data_range)
    error = double(back - x).square().flatten(1).mean(1)
    name = f"{type(solver).__name__}({getattr(solver, 'steps', '')})"
    psnr = -10 * error.clamp_min(1e-20).log10().mean()
    return Reconstruction(name, counted.calls, error.mean().item(), psnr.item(), ssim(back, x).mean().item())


def reconstruction_sweep(
    denoiser: DenoiserLike, x: Tensor, label: Tensor | None = None, data_range: Range = UNIT
) -> list[Reconstruction]:
    r"""Error against calls: DDIM with 10 to 100 steps and RK4 with 5 to 25, each way."""
    solvers: list[ODESolver] = [*(DDIMInversion(k) for k in (10, 20, 50, 100)), *(RK4(k) for k in (5, 12, 25))]
    found = []
    for solver in solvers:
        found.append(reconstruction_error(denoiser, x, solver=solver, label=label, data_range=data_range))
        end_if_asked()
    return found


def sweep_table(found: list[Reconstruction]) -> str:
    r"""The sweep as a Markdown table."""
    lines = ["| solver | calls | MSE | PSNR, dB | SSIM |", "|---|---|---|---|---|"]
    lines += [f"| {r.solver} | {r.calls} | {r.mse:.3g} | {r.psnr:.2f} | {r.ssim:.4f} |" for r in found]
    return "\n".join(lines)


def ssim(a: Tensor, b: Tensor, sigma: float = 1.5, window: int = 11) -> Tensor:
    r"""Structural similarity of images in [0, 1], (B,): Gaussian window, data range 1, k = .01 and .03.

        Only windows inside the image count. A window larger than the image shrinks to the largest odd side that fits.

    Args:
        a, b: (B, C, H, W). sigma: standard deviation of the window, pixels. window: its side, odd.

    Reference: Wang et al. (2004), equation 13.
    """
    mean: Tensor = ssim_map(a, b, sigma, window).flatten(1).mean(1)
    return mean


def ssim_map(a: Tensor, b: Tensor, sigma: float = 1.5, window: int = 11) -> Tensor:
    r"""The structural similarity of every window, (B, C, H', W'), NaN where it holds one; arguments as of `ssim`."""
    side = min(window, min(a.shape[-2:]) - (min(a.shape[-2:]) + 1) % 2)
    place = torch.arange(side, dtype=torch.float64) - side // 2
    line = (-(place**2) / (2 * sigma**2)).exp()
    kernel = torch.outer(line, line) / line.sum() ** 2
    channels = a.shape[1]
    a, b = double(a), double(b)
    kernel = kernel.to(a.device).expand(channels, 1, side, side)

    def smooth(x: Tensor) -> Tensor:
        return functional.conv2d(x, kernel, groups=channels)

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b, cov = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2, smooth(a * b) - mean_a * mean_b
    c_1, c_2 = 0.01**2, 0.03**2
    return (2 * mean_a * mean_b + c_1) * (2 * cov + c_2) / ((mean_a**2 + mean_b**2 + c_1) * (var_a + var_b + c_2))


class _Counted:
    r"""A denoiser that counts its calls."""

    def __init__(self, denoiser: DenoiserLike) -> None:
        self._denoiser, self.calls = denoiser, 0
        self.sde = denoiser.sde
        self.num_classes = getattr(denoiser, "num_classes", None)
        self.takes_next = takes_next(denoiser)
        self.sigma_data = getattr(denoiser, "sigma_data", 0.5)

    def __call__(
        self, u: Tensor, s: Tensor | float, label: Tensor | None = None, *, next_s: Tensor | float | None = None
    ) -> Tensor:
        self.calls += 1
        return jump(self._denoiser, u, s, label, next_s)
