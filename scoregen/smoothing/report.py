r"""Certified accuracy of a run against radius, with its uncertainty, as a table and a curve.

An input counts at radius r if its label is right and its certified radius exceeds r (strictly: the ball is open).
Abstentions count as wrong. Radii were rounded down when they were written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from scoregen.pictures import figure
from scoregen.smoothing.bounds import high_probability_accuracy, percent, round_down, safe, significant
from scoregen.smoothing.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RHO = 1e-3


@dataclass(frozen=True)
class Summary:
    r"""A run in numbers.

    Attributes:
        inputs: their number, abstentions included.
        accuracy: certified accuracy at radius 0.
        average_radius: mean radius over all inputs, with 0 for a wrong label (ACR); a lower bound if the method stops
            early.
        abstentions: share of inputs without a label.
        draws: mean forward passes for an input.
    """

    inputs: int
    accuracy: float
    average_radius: float
    abstentions: float
    draws: float


def correct_radii(run: Run) -> np.ndarray:
    r"""The certified radius of each input, -1 where the label is wrong or missing."""
    return np.array([r["radius"] if r["predicted"] == r["label"] else -1.0 for r in run.records])


def certified_accuracy(run: Run, radii: ArrayLike) -> np.ndarray:
    r"""The share of inputs with the right label and a certified radius above each of the radii (R,)."""
    certified = correct_radii(run)[None, :] > np.asarray(radii)[:, None]
    return np.asarray(certified.mean(1))


def guaranteed_accuracy(run: Run, radii: ArrayLike, rho: float = RHO) -> np.ndarray:
    r"""A lower bound of the true certified accuracy at each radius, right with probability 1 - rho over the noise."""
    m, alpha = len(run.records), run.header["alpha"]
    correct = np.rint(certified_accuracy(run, radii) * m).astype(int)
    return np.array([high_probability_accuracy(int(count), m, alpha, rho) for count in correct])


def summary(run: Run) -> Summary:
    r"""The numbers of a run."""
    radii = correct_radii(run)
    return Summary(
        inputs=len(radii),
        accuracy=float((radii > 0).mean()),
        average_radius=float(radii.clip(min=0).mean()),
        abstentions=float(np.mean([r["predicted"] == -1 for r in run.records])),
        draws=float(np.mean([r["draws"] for r in run.records])),
    )


def names_of(runs: Mapping[Path, Run]) -> dict[str, Run]:
    r"""Runs by the shortest ends of their paths that are unique."""
    paths = [path.resolve().parts for path in runs]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return dict(zip(names, runs.values(), strict=True))
    raise ValueError("the runs to compare must be in different folders, got one of them twice.")


def table_radii(runs: Sequence[Run]) -> list[float]:
    r"""0, step, 2 step, ... up to the largest radius that any of the runs covers."""
    if all(run.header.get("radii") is not None for run in runs):
        return sorted({radius for run in runs for radius in run.header["radii"]})
    step = min(run.header["step"] for run in runs)
    top = max(_end(run) for run in runs)
    return [significant(i * step) for i in range(int(top / step + 1e-6) + 1)]


def _end(run: Run) -> float:
    r"""The largest radius that a run covers: its method's last one, or one step beyond the largest certified."""
    if run.header["reach"] is not None:
        return float(run.header["reach"])
    return float(correct_radii(run).max(initial=0.0) + run.header["step"])


def _covers(run: Run, radius: float) -> bool:
    r"""Whether a run covers a radius; its method may have stopped before."""
    reach = run.header["reach"]
    return reach is None or radius <= reach * (1 + 1e-6)


def shown(radius: float) -> str:
    r"""A radius in few digits, never one above it."""
    text = f"{radius:g}"
    return text if float(text) <= radius else f"{round_down(radius):.12g}"


def explained(text: str, meaning: str) -> str:
    r"""A radius with what it implies in parentheses, if anything."""
    return f"{text} ({meaning})" if meaning else text


def table(
    runs: Mapping[str, Run], radii: Sequence[float] | None = None, implies: Callable[[float], str] = lambda radius: ""
) -> str:
    r"""Certified accuracy in percent, in parentheses the bound that holds with probability 1 - rho; as Markdown.

    A dash marks a radius beyond the one at which a method stopped: nothing is known there.

    Args:
        runs: by name, one column each.
        radii: the rows; None: on the grid of the noise.
        implies: a radius in other units (`noise.implies`), shown in parentheses.
    """
    head, *rows = table_rows(runs, radii, implies)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def table_rows(
    runs: Mapping[str, Run], radii: Sequence[float] | None = None, implies: Callable[[float], str] = lambda radius: ""
) -> list[list[str]]:
    r"""The cells of `table`, row by row; the first row is the head."""
    radii = table_radii(list(runs.values())) if radii is None else radii
    lines = [[f"radius ({_norms(runs)})", *runs]]
    lines += [[explained(shown(r), implies(r)), *(_cell(run, r) for run in runs.values())] for r in radii]
    found = [summary(run) for run in runs.values()]
    averages = [_average(s, run) for s, run in zip(found, runs.values(), strict=True)]
    return [
        *lines,
        ["average certified radius", *averages],
        ["abstentions, %", *(percent(s.abstentions, up=True) for s in found)],
        ["mean draws", *(f"{s.draws:,.0f}" for s in found)],
        *_chosen(list(runs.values())),
        ["inputs", *(f"{s.inputs}" for s in found)],
    ]


def _chosen(runs: Sequence[Run]) -> list[list[str]]:
    r"""How often each expert of dual smoothing was chosen, a row for each; none where no run has experts."""
    places = range(max(len(run.header.get("parts", ())) for run in runs) - 1)  # the first part is the selector

    def share(run: Run, place: int) -> str:
        if f"expert {place}" not in run.header.get("parts", ()):
            return ""
        return percent(float(np.mean([r["selector"]["predicted"] == place for r in run.records])))

    return [[f"expert {place} chosen, %", *(share(run, place) for run in runs)] for place in places]


def _average(found: Summary, run: Run) -> str:
    average = significant(found.average_radius)  # .45 for the mean of .6 and .3, despite rounding
    text = f"{round_down(average, 3):.3f}" if average >= 0.1 or not average else f"{safe(average):.12g}"
    return text if run.header["reach"] is None else f">= {text}"


def _cell(run: Run, radius: float) -> str:
    if not _covers(run, radius):
        return "-"
    return f"{percent(certified_accuracy(run, [radius])[0])} ({percent(guaranteed_accuracy(run, [radius])[0])})"


def _norms(runs: Mapping[str, Run]) -> str:
    return " / ".join(dict.fromkeys(run.header["norm"] for run in runs.values()))


def curve(runs: Mapping[str, Run], path: str | Path) -> None:
    r"""Draws certified accuracy against radius into a PNG, which is written whole or not at all."""
    figure(Path(path), drawing(runs))


def drawing(runs: Mapping[str, Run]) -> "Callable[[Axes], None]":
    r"""What draws certified accuracy against radius, with the guaranteed one as a thin line, into matplotlib's axes."""
    top = max(_end(run) for run in runs.values())

    def draw(axes: "Axes") -> None:
        for name, run in runs.items():
            grid = np.linspace(0.0, _end(run), 400)
            (line,) = axes.plot(grid, 100 * certified_accuracy(run, grid), label=name)
            axes.plot(grid, 100 * guaranteed_accuracy(run, grid), color=line.get_color(), linewidth=0.6, linestyle="--")
        axes.plot([], [], color="grey", linewidth=0.6, linestyle="--", label="guaranteed for the inputs together")
        axes.set(xlabel=f"radius ({_norms(runs)})", ylabel="certified accuracy, %", ylim=(0, 101), xlim=(0, top))
        axes.grid(alpha=0.3)
        axes.legend()

    return draw
