r"""A law of noise levels that follows the gradient: levels with large gradients are drawn more often, and count less.

    quantile q' of the new law -> quantile q of the base law,   density r(q) of the one relative to the other

r is constant in each of n bins that are equally likely under the base law, and proportional to sqrt(E[g^2]) there,
clipped to [1/4, 4]: of all such laws the one under which the sum of gradients has the least variance. A sample counts
1/r, so the expected gradient is that of the base law. Stratified quantiles stay stratified.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scoregen.checks import inside, whole

LEAST, MOST = 0.25, 4.0


class AdaptiveLevels(nn.Module):
    r"""The map of quantiles, and the running means that it follows; the same on every process.

    Args:
        bins: equally likely ones of the base law, >= 1.
        every: steps between two changes of the law, >= 1.
        rate: share of a step in the running means, in (0, 1].

    Raises:
        ValueError: values out of range.

    Reference: Katharopoulos & Fleuret (2018), arXiv 1803.00942, section 3.1, for the square root of the second moment.
    """

    density: Tensor
    sums: Tensor
    pending: Tensor

    def __init__(self, bins: int = 32, every: int = 16, rate: float = 0.005) -> None:
        super().__init__()
        whole(1, bins=bins, every=every)
        inside(0, 1, "(]", rate=rate)
        self.bins, self.every, self.rate = int(bins), int(every), float(rate)
        self.register_buffer("density", torch.ones(bins))
        self.register_buffer("sums", torch.zeros(2, bins))  # of squared gradients and their number, older ones less
        self.register_buffer("pending", torch.zeros(2, bins))  # of the current step

    def forward(self, quantile: Tensor) -> tuple[Tensor, Tensor]:
        r"""Quantiles of the base law (B,) for those of this law (B,), and the weights 1/r (B,)."""
        density = self.density.to(quantile)
        density = density / density.mean()
        ends = density.cumsum(0) / self.bins
        place = torch.searchsorted(ends[:-1].contiguous(), quantile.contiguous(), right=True)
        inner = (quantile - (ends - density / self.bins)[place]) * self.bins / density[place]  # in its bin, 0 to 1
        last = 1 - torch.finfo(quantile.dtype).eps
        return ((place + inner.clamp(0, 1)) / self.bins).clamp(max=last), 1 / density[place]

    @torch.no_grad()
    def record(self, quantile: Tensor, square: Tensor) -> None:
        r"""Takes part of the current step into account, over all processes.

        Args:
            quantile: of the base law (B,). square: squared gradients (B,).
        """
        square = square.to(self.sums)
        seen = square.isfinite()  # an overflow costs its step, not the means
        rows = torch.stack([torch.where(seen, square, 0.0), seen.to(square)])
        bins = torch.arange(self.bins, device=square.device)
        hits = (quantile * self.bins).long().clamp(0, self.bins - 1)[:, None] == bins
        sums = (rows[:, :, None] * hits).sum(1)  # index_add has no fixed order on accelerators
        if dist.is_initialized():
            dist.all_reduce(sums)
        self.pending = self.pending + sums

    @torch.no_grad()
    def at(self, step: int) -> None:
        r"""Ends the last step; at every `every`-th one the law follows the means."""
        self.sums = torch.lerp(self.sums, self.pending, self.rate)
        self.pending = torch.zeros_like(self.pending)
        if step % self.every == 0:
            self.density = self._followed()

    def _followed(self) -> Tensor:
        r"""The density, (n,), with mean 1."""
        total, count = self.sums
        overall = total.sum() / count.sum().clamp_min(1e-30)
        root = torch.where(count > 0, total / count.clamp_min(1e-30), overall).sqrt()
        root = torch.where(overall > 0, root, 1.0).clamp_min(1e-20)  # before there is a sample: the base law
        low, high = (LEAST / root.amax()).log(), (MOST / root.amin()).log()
        for _ in range(40):  # the factor by which the clipped root has mean 1
            middle = (low + high) / 2
            above = (root * middle.exp()).clamp(LEAST, MOST).mean() > 1
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        density = (root * ((low + high) / 2).exp()).clamp(LEAST, MOST)
        return density / density.mean()
