r"""Quality against cost: the Frechet distance over network calls, one line a sampler."""

from dataclasses import dataclass
from pathlib import Path

from scoregen.metrics.report import Number


@dataclass(frozen=True)
class Point:
    r"""One evaluation of a sweep.

    Args:
        sampler: name. steps, calls: of it; calls are network calls an image.
        frechet: the Frechet distance.
    """

    sampler: str
    steps: int
    calls: int
    frechet: Number


def save_figure(points: list[Point], path: Path) -> Path:
    r"""Writes the PNG: lines with their bootstrap intervals, and the floor."""
    from scoregen.pictures import figure

    def draw(axes) -> None:
        for name in dict.fromkeys(point.sampler for point in points):
            line = sorted((p for p in points if p.sampler == name), key=lambda p: p.calls)
            calls, values = [p.calls for p in line], [p.frechet.value for p in line]
            drawn = axes.plot(calls, values, marker="o", label=name)[0]
            if all(p.frechet.low is not None for p in line):
                low, high = [p.frechet.low for p in line], [p.frechet.high for p in line]
                axes.fill_between(calls, low, high, alpha=0.2, color=drawn.get_color())
        axes.axhline(points[0].frechet.floor, linestyle="--", color="grey", label="floor (held-out data)")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("network calls an image")
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
