r"""Clamping of a denoiser's output to the range of the data."""

import math

import torch
from torch import Tensor

from scoregen.models.protocol import DenoiserLike, jump, takes_next
from scoregen.models.wrapper import DenoiserWrapper


class Clamp(DenoiserWrapper):
    r"""D' = D clamped so that its data value lies in [low, high]; a chart increases, so this is a clamp in chart
    coordinates too.

        The exact denoiser of data in the range needs no clamp; a network's errors outside it are cut, at the price of a
        flow that is not smooth there (solvers of high order and likelihoods lose accuracy).

    Args:
        denoiser: D(u, s) of a process.
        low, high: range in data units; None leaves that side open.

    Raises:
        ValueError: not low < high, or a bound outside the chart (low + offset <= 0 for a log chart).
    """

    def __init__(self, denoiser: DenoiserLike, low: float | None = 0.0, high: float | None = 1.0) -> None:
        super().__init__(denoiser)
        if low is not None and high is not None and not low < high:
            raise ValueError(f"low must be < high, got low={low}, high={high}.")
        self.low, self.high = low, high
        self._chart_low = -math.inf if low is None else self._chart_value(low)
        self._chart_high = math.inf if high is None else self._chart_value(high)

    def _chart_value(self, x: float) -> float:
        return self.sde.to_chart(torch.tensor([x], dtype=torch.float64)).item()

    @property
    def takes_next(self) -> bool:
        return takes_next(self.denoiser)

    def forward(
        self, u: Tensor, s: Tensor | float, label: Tensor | None = None, *, next_s: Tensor | float | None = None
    ) -> Tensor:
        return jump(self.denoiser, u, s, label, next_s).clamp(self._chart_low, self._chart_high)
