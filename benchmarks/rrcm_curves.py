r"""Draws rrcm_curve_*.png of the docs: the certified accuracies in the tables of docs/rrcm.md, against the radius.

    python benchmarks/rrcm_curves.py

A point is a number of a table. The certificates were read at these radii only, so the lines between points are no data.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from scoregen.pictures import PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
FILES = {"MNIST": "mnist", "Fashion-MNIST": "fashion_mnist", "CIFAR-10": "cifar10"}
SIGMA = ".5"  # of a table whose head names none
Curves = dict[str, list[tuple[float, float]]]  # the points (radius, certified accuracy in %) of each column


def tables(text: str) -> dict[tuple[str, str], Curves]:
    r"""The tables of certified accuracy on a page, by data set and sigma."""
    found = {}
    for head, body in re.findall(r"^\| (.+), radius \(l2\) (.*\|\n(?:\|.*\n)+)", text, re.M):
        data, _, sigma = head.partition(", sigma ")
        names, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        rows = [row for row in rows if re.fullmatch(r"[\d.]+", row[0])]
        found[data, sigma or SIGMA] = {
            name: [(float(row[0]), float(row[k])) for row in rows] for k, name in enumerate(names, 1)
        }
    return found


def fill(axes: "Axes", curves: Curves, title: str) -> None:
    r"""One table: a curve a column, a marker a number."""
    for (name, points), marker in zip(curves.items(), "osD^v", strict=False):
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=5, linewidth=1, label=name)
    axes.set(title=title, xlabel="radius (l2)", ylim=(0, 101), xlim=(-0.03, None))
    axes.grid(alpha=0.3)


def draw(found: dict[tuple[str, str], Curves], data: str) -> "Figure":
    r"""One data set: a panel a sigma, with one legend below them."""
    from matplotlib.figure import Figure

    panels = sorted((float(sigma), curves) for (name, sigma), curves in found.items() if name == data)
    figure = Figure((max(6.4, 3.6 * len(panels)), 3.9), layout="constrained", dpi=90, facecolor=PAPER)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, (sigma, curves) in zip(axes, panels, strict=True):
        fill(panel, curves, f"{data}, sigma = {sigma:g}")
    axes[0].set_ylabel("certified accuracy, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def main() -> None:
    r"""One picture a data set."""
    found = tables((DOCS / "rrcm.md").read_text())
    for data, name in FILES.items():
        path = DOCS / "assets" / f"rrcm_curve_{name}.png"
        draw(found, data).savefig(path)
        print(path)


if __name__ == "__main__":
    main()
