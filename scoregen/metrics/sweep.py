r"""Quality against cost: the Frechet distance over network calls, one line for each sampler."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scoregen.metrics.report import Number
from scoregen.pictures import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Point:
    r"""One evaluation of a sweep.

    Args:
        sampler: its name. steps: number of steps of the sampler. calls: number of calls of the network, for each image.
        frechet: the Frechet distance.
    """

    sampler: str
    steps: int
    calls: int
    frechet: Number


def _apart(calls: list[int]) -> list[int]:
    r"""Of sorted numbers those whose labels do not touch on a logarithmic axis."""
    kept: list[int] = []
    for number in calls:
        if not kept or number > 1.25 * kept[-1]:
            kept.append(number)
    return kept


def save_figure(points: list[Point], path: Path) -> Path:
    r"""Writes the PNG: lines with their bootstrap intervals, and the floor."""

    def draw(axes: "Axes") -> None:
        for name in dict.fromkeys(point.sampler for point in points):
            line = sorted((p for p in points if p.sampler == name), key=lambda p: p.calls)
            calls, values = [p.calls for p in line], [p.frechet.value for p in line]
            drawn = axes.plot(calls, values, marker="o", label=name)[0]
            bounds = [(p.frechet.low, p.frechet.high) for p in line]
            known = [(low, high) for low, high in bounds if low is not None and high is not None]
            if len(known) == len(line):
                lows, highs = zip(*known, strict=True)
                axes.fill_between(calls, lows, highs, alpha=0.2, color=drawn.get_color())
        if (floor := points[0].frechet.floor) is not None:
            axes.axhline(floor, linestyle="--", color="grey", label="floor (held-out data)")
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = _apart(sorted({point.calls for point in points}))
        axes.set_xticks(ticks, [str(calls) for calls in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("network calls per image")
        axes.set_ylabel(points[0].frechet.name)
        axes.legend()

    return figure(path, draw, size=(6.0, 4.0))


def table(points: list[Point]) -> str:
    r"""The sweep as a Markdown table."""
    name = points[0].frechet.name
    lines = [f"| sampler | steps | calls | {name} | interval | floor |", "|---|---|---|---|---|---|"]
    for p in points:
        interval = "" if p.frechet.low is None else f"{p.frechet.low:.4g} .. {p.frechet.high:.4g}"
        value, floor = f"{p.frechet.value:.4g}", f"{p.frechet.floor:.4g}"
        lines.append(f"| {p.sampler} | {p.steps} | {p.calls} | {value} | {interval} | {floor} |")
    return "\n".join(lines)
