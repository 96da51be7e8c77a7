r"""The projector of contrastive learning: Linear, batch norm, ReLU, twice, and Linear.

Batch norm sees the whole batch of all processes, so that their number changes nothing but rounding. (torch's
SyncBatchNorm does that on accelerators only.)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import whole
from scoregen.parallel import gather_rows


class GlobalBatchNorm(nn.BatchNorm1d):
    r"""Batch norm of features (B, D) with the mean and variance of the rows of all processes, in float32 at least."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.to(torch.promote_types(dtype, torch.float32))
        running_mean, running_var, count = self.running_mean, self.running_var, self.num_batches_tracked
        # those of a batch norm that tracks its statistics, as BatchNorm1d does unless told otherwise
        assert running_mean is not None and running_var is not None and count is not None and self.momentum is not None
        if not self.training:
            scale = (running_var + self.eps).rsqrt() * self.weight
            return ((x - running_mean) * scale + self.bias).to(dtype)
        rows = gather_rows(x)
        mean, variance = rows.mean(0), rows.var(0, unbiased=False)
        with torch.no_grad():
            count.add_(1)
            running_mean.lerp_(mean.to(running_mean), self.momentum)
            unbiased = variance * len(rows) / max(1, len(rows) - 1)
            running_var.lerp_(unbiased.to(running_var), self.momentum)
        return ((x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias).to(dtype)


class Projector(nn.Module):
    r"""width -> hidden -> hidden -> out.

    Args:
        width, hidden, out: numbers of features.

    Raises:
        ValueError: one of them is < 1.
    """

    def __init__(self, width: int, hidden: int = 256, out: int = 256) -> None:
        super().__init__()
        whole(1, width=width, hidden=hidden, out=out)
        self.width, self.hidden, self.out = width, hidden, out
        self.first, self.first_norm = nn.Linear(width, hidden, bias=False), GlobalBatchNorm(hidden)
        self.second, self.second_norm = nn.Linear(hidden, hidden, bias=False), GlobalBatchNorm(hidden)
        self.last = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        r"""(B, width) -> (B, out)."""
        x = functional.relu(self.first_norm(self.first(x)))
        projected: Tensor = self.last(functional.relu(self.second_norm(self.second(x))))
        return projected
