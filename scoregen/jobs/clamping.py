r"""The key clamp of the jobs that sample: D is cut to a range of the data at every call, and what is cut is counted."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from scoregen.errors import UserError
from scoregen.models import Clamp
from scoregen.models.protocol import DenoiserLike, jump

FILE = "clamped.json"


class CountingClamp(Clamp):
    r"""A `Clamp` that counts the values of D that it cuts, on their device and without a wait.

    Args:
        denoiser, low, high: as in `Clamp`.
    """

    def __init__(self, denoiser: DenoiserLike, low: float | None, high: float | None) -> None:
        super().__init__(denoiser, low, high)
        self.values = 0
        self._below: Tensor | int = 0
        self._above: Tensor | int = 0

    def forward(
        self, u: Tensor, s: Tensor | float, label: Tensor | None = None, *, next_s: Tensor | float | None = None
    ) -> Tensor:
        denoised = jump(self.denoiser, u, s, label, next_s)
        self.values += denoised.numel()
        self._below = self._below + (denoised < self._chart_low).sum()
        self._above = self._above + (denoised > self._chart_high).sum()
        return denoised.clamp(self._chart_low, self._chart_high)

    def counts(self) -> dict[str, int]:
        r"""How many values of D there were, and were below and above the range."""
        return {"values": self.values, "below": int(self._below), "above": int(self._above)}


def check_range(clamp: Sequence[float | None]) -> None:
    r"""Refuses a clamp that is no range [LOW, HIGH] of numbers, one of which may be null."""
    ends = [end for end in clamp if end is not None]
    finite = all(-float("inf") < end < float("inf") for end in ends)
    if len(clamp) != 2 or not ends or not finite or (len(ends) == 2 and not ends[0] < ends[1]):
        raise UserError(
            f"clamp: must be [LOW, HIGH] in units of the data, LOW < HIGH, one of them null for no end, got "
            f"{list(clamp)}. Give clamp=[0,1], or leave it out."
        )


def clamped(
    denoiser: Any, clamp: Sequence[float | None] | None, data_range: tuple[float, float] | None
) -> CountingClamp | None:
    r"""The denoiser under a clamp; None where there is none.

    Args:
        denoiser: with its guidance. clamp: [low, high] in units of the data. data_range: that the checkpoint states.

    Raises:
        UserError: the chart has no range of single values, or a range that cuts values of the data.
    """
    if clamp is None:
        return None
    low, high = clamp
    chart = denoiser.sde.chart
    if not chart.elementwise or (chart.as_affine() is None and chart.as_log() is None):
        raise UserError(
            f"clamp: needs a process of the values themselves or of their logarithm, this checkpoint's has the chart "
            f"{type(chart).__name__}. Leave clamp out."
        )
    cuts = data_range is not None and (
        (low is not None and low > data_range[0]) or (high is not None and high < data_range[1])
    )
    if data_range is not None and cuts:
        raise UserError(
            f"clamp: would cut values of the data, which lie in [{data_range[0]:g}, {data_range[1]:g}], got "
            f"{list(clamp)}. Give that range, or a wider one."
        )
    try:
        return CountingClamp(denoiser, low, high)
    except ValueError as error:
        raise UserError(f"clamp: {error}") from error


def tell(clamp: CountingClamp, samples: int, out: Path) -> None:
    r"""Adds what was cut to the file of a folder and prints it, on the first process; called on every one.

    Args:
        clamp: of this process. samples: made by this process since it counts. out: the folder.
    """
    from scoregen.parallel import gather, rank
    from scoregen.storage import write_json

    parts = gather(clamp.counts() | {"samples": samples})
    if rank() != 0 or not any(part["samples"] for part in parts):
        return
    path = out / FILE
    before = [json.loads(path.read_text())] if path.exists() else []
    total = {key: sum(part[key] for part in [*parts, *before]) for key in ("samples", "values", "below", "above")}
    write_json(path, {"range": [clamp.low, clamp.high]} | total)
    ends = ", ".join("none" if end is None else f"{end:g}" for end in (clamp.low, clamp.high))
    print(
        f"clamp [{ends}]: {total['below']} values of D below and {total['above']} above were cut, of {total['values']} "
        f"in all calls for {total['samples']} samples"
    )
