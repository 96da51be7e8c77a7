r"""Draws docs/assets/concepts.png: data, chart, path, EDM coordinates u, the denoiser, on one digit.

python benchmarks/concepts.py

The denoiser of the picture is exact: E[y_0 | u] where the data are scikit-learn's 1,617 training digits, which is their
mean with weights exp(-|u - y|^2/(2 s^2)).
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1])]
from scoregen.data import Digits  # noqa: E402
from scoregen.sde import EDM, Affine  # noqa: E402

PLACE = Path(__file__).parents[1] / "docs" / "assets" / "concepts.png"
LEVELS = (0.002, 0.2, 0.5, 1.0, 2.0, 80.0)
INK, BLUE, RED, PAPER = "#1b1b1b", "#1f5fa8", "#b03030", "#ffffff"
STEPS = [
    ("data x", "in their own units,\nimages in [0, 1]"),
    ("chart", "y = 2x - 1, or\nlog(x + offset)"),
    ("path", r"$y_t = \alpha y_0 + \mathrm{shift} + \sigma\,\varepsilon$" + "\nt = 0 data, t = 1 noise"),
    ("u", r"$u = y_0 + s\,\varepsilon$" + "\n" + r"noise ratio $s = \sigma/\alpha$"),
    ("denoiser", r"$D(u, s) = E[y_0\,|\,u]$" + "\nwhat the network learns"),
]


def denoised(u: Tensor, s: float, y: Tensor) -> Tensor:
    r"""The exact D(u, s) of data y (N, d), for u (d,)."""
    weight = torch.softmax(-((u - y) ** 2).sum(dim=1) / (2 * s * s), dim=0)
    return weight @ y


def states() -> tuple[list[Tensor], list[Tensor]]:
    r"""One digit at each level, u over sqrt(1 + s^2), and what D makes of it; 8 x 8 each."""
    sde = EDM(LEVELS[0], LEVELS[-1], chart=Affine(2.0, -1.0))
    part = Digits().train
    y = sde.to_chart(part.in_units(range(len(part)))[0]).flatten(1).double()
    eps = torch.randn(64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    noisy = [(y[7] + s * eps, s) for s in LEVELS]
    shown = [(u / (1 + s * s) ** 0.5).reshape(8, 8) for u, s in noisy]
    return shown, [denoised(u, s, y).reshape(8, 8) for u, s in noisy]


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(11, 6.4), facecolor=PAPER)
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, 1), ylim=(0, 1))
    page.axis("off")
    for k, (name, text) in enumerate(STEPS):
        x = 0.105 + 0.1975 * k
        box = {"boxstyle": "round,pad=0.6", "facecolor": "#eef3fa", "edgecolor": BLUE}
        page.text(x, 0.925, name, ha="center", va="center", fontsize=13, weight="bold", color=INK, bbox=box)
        page.text(x, 0.82, text, ha="center", va="center", fontsize=10.5, color=INK)
        if k:
            arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.3}
            page.annotate("", (x - 0.072, 0.925), (x - 0.125, 0.925), arrowprops=arrow)
    _arrow(page, 0.70, (0.13, 0.97), BLUE, "the process adds noise: t from 0 to 1")
    _arrow(page, 0.045, (0.97, 0.13), RED, "a sampler steps down the levels with D, from noise to data")
    rows = (("u", "shown over\n" + r"$\sqrt{1+s^2}$"), ("D(u, s)", "the mean of the\ndata that fit u"))
    for row, (images, (name, note)) in enumerate(zip(states(), rows, strict=True)):
        y = 0.38 - 0.27 * row
        page.text(0.065, y + 0.135, name, ha="center", fontsize=13, weight="bold", color=INK)
        page.text(0.065, y + 0.055, note, ha="center", fontsize=9.5, color=INK)
        for k, image in enumerate(images):
            x = 0.135 + 0.1415 * k
            axes = figure.add_axes((x, y, 0.128, 0.22))
            axes.imshow(image, cmap="gray", vmin=-1.2, vmax=1.2)
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(f"s = {LEVELS[k]:g}", fontsize=11, color=INK)
    figure.savefig(PLACE, dpi=110, facecolor=PAPER)
    print(PLACE)


def _arrow(page: Any, y: float, ends: tuple[float, float], color: str, text: str) -> None:
    style = {"arrowstyle": "-|>", "color": color, "lw": 2}
    page.annotate("", (ends[1], y), (ends[0], y), arrowprops=style)
    page.text(sum(ends) / 2, y + 0.012, text, ha="center", va="bottom", fontsize=11, color=color)


if __name__ == "__main__":
    main()
