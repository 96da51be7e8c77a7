r"""Whether the speckle of neighbouring pixels is correlated, from speckled images alone.

Blocks of 8 x 8 pixels whose log I, less its plane of least squares r, varies no more than speckle of L looks does
(psi_1(L)) show speckle alone. Over them

    rho = mean(r r') / mean(r^2),     r' one pixel to the right, or below

is about -0.06 for independent pixels. Above .1 they are correlated, the parts of a split are not independent, and a
network learns to keep the speckle.
"""

import torch
from torch import Tensor
from torch.nn import functional

from scoregen.parallel import gather, say_once

MOST = 0.1
_SIDE = 8
_ENOUGH = 10_000  # pixels of such blocks, over which rho has a deviation of 0.01


def block_correlations(x: Tensor, variance: float) -> Tensor:
    r"""Sums over homogeneous blocks, (4,): of r r' to the right, of r r' below, of r^2, and of the number of pixels.

    Args:
        x: intensities (B, C, H, W), sides of 8 pixels or more. variance: of the logarithm of the speckle.
    """
    blocks = functional.unfold(x.detach().float().log().flatten(0, 1).unsqueeze(1), _SIDE, stride=_SIDE)
    r = blocks.transpose(1, 2).reshape(-1, _SIDE, _SIDE)
    r = r - r.mean((1, 2), keepdim=True)
    across = torch.linspace(-1, 1, _SIDE, device=x.device)
    square = across.square().sum() * _SIDE
    for plane in (across[None], across[:, None]):
        r = r - plane * (r * plane).sum((1, 2), keepdim=True) / square
    count = _SIDE**2
    kept = (r.square().sum((1, 2)) <= variance * (count - 3)).float()
    pairs = [(r[..., 1:] * r[..., :-1]).mean((1, 2)), (r[:, 1:] * r[:, :-1]).mean((1, 2)), r.square().mean((1, 2))]
    sums: Tensor = torch.stack([(pair * kept).sum() for pair in pairs] + [kept.sum()]) * count
    return sums


class SpeckleCorrelation:
    r"""Adds up correlations on the device and reads them once, at the first log step with enough pixels; then it warns.

    Args:
        variance: of the logarithm of the speckle. subsample: of the loss, for the message.
    """

    def __init__(self, variance: float, subsample: int = 1) -> None:
        self.variance, self.subsample = variance, subsample
        self._sums: Tensor | None = None
        self._done = False

    def see(self, x: Tensor) -> None:
        r"""Adds intensities (B, *S); nothing once they have been read, and nothing of what are no images."""
        if self._done or x.ndim != 4 or min(x.shape[-2:]) < _SIDE:
            return
        found = block_correlations(x, self.variance)
        if self._sums is None or self._sums.device != found.device:  # the first look is on the CPU
            self._sums = torch.zeros_like(found)
        self._sums = self._sums + found

    def metrics(self) -> dict[str, float]:
        r"""The larger correlation over all processes, once; says it where it is too large."""
        if self._done or self._sums is None:
            return {}
        sums = torch.tensor(gather(self._sums.tolist()), dtype=torch.float64).sum(0)
        right, below, square, pixels = sums.tolist()
        if pixels < _ENOUGH:
            return {}
        self._done = True
        found = max(right, below) / square
        if found > MOST:
            say_once(
                f"loss: the speckle of neighbouring pixels is correlated: {found:.2f} at a distance of one pixel, "
                f"above {MOST:g}. The network will learn to keep the speckle. Give "
                f"loss.subsample={self.subsample + 1}, and restore images that are subsampled alike."
            )
        return {"speckle_correlation": found}
