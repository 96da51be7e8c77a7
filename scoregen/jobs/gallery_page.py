r"""gallery.html: sections of labelled figures, each with a sentence, which says what does not apply to a run."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from scoregen.pictures import Range, figure_png, fractions, has_ends
from scoregen.report import write_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAGE = """{% extends "base.html" %}
{% from "parts.html" import picture, settings %}
{% block style %}
.grid>:only-child{overflow-x:auto}
.grid>:only-child img{min-width:34rem}
{% endblock %}
{% block content %}
{{ settings(facts.items()) }}
{% for section in sections %}
<h2>{{ section.heading }}</h2>
<p>{{ section.text }}</p>
<div class="grid">
{% for png, caption in section.figures %}<figure>{{ picture(png, caption) }}
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}</div>
{% endfor %}
{% endblock %}
"""


@dataclass(frozen=True)
class Section:
    r"""A heading, a sentence, and (PNG, caption) of its figures; none where the sentence says why."""

    heading: str
    text: str
    figures: list[tuple[bytes, str]] = field(default_factory=list)


def write_gallery(path: Path, title: str, facts: dict[str, object], sections: Sequence[Section]) -> Path:
    r"""Writes the page, whole or not at all."""
    return write_html(path, _PAGE, title=title, facts=facts, sections=sections)


def grid_png(x: Tensor, data_range: Range | None, columns: int | None = None) -> bytes:
    r"""A batch (B, *S) as one PNG: images as a grid, vectors as a scatter plot."""
    from tempfile import TemporaryDirectory

    from scoregen.pictures import save_grid

    with TemporaryDirectory() as folder:
        return save_grid(x, Path(folder) / "grid.png", columns, data_range=data_range).read_bytes()


def labelled_png(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Tensor], data_range: Range | None
) -> bytes:
    r"""Images in rows and columns that are named.

    Args:
        rows, columns: their names. cells: of each row its images (columns, C, H, W). data_range: black to white.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from scoregen.pictures import PAPER

    side = 0.9
    canvas = Figure(
        figsize=(side * len(columns) + 1.6, side * len(rows) + 0.5), layout="constrained", dpi=110, facecolor=PAPER
    )
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(len(rows), len(columns), squeeze=False)
    low = min(float(cell.min()) for cell in cells)
    high = max(float(cell.max()) for cell in cells)
    ends = data_range if data_range is not None and has_ends(data_range) else (low, max(high, low + 1e-12))
    for i, row in enumerate(cells):
        shown = fractions(row.detach().float().cpu(), ends).nan_to_num(0).clamp(0, 1).permute(0, 2, 3, 1)
        for j, image in enumerate(shown):
            place = axes[i][j]
            pixels = image[..., 0] if image.shape[-1] == 1 else image
            place.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
            if i == 0:
                place.set_title(columns[j], fontsize=8)
            if j == 0:
                place.set_ylabel(rows[i], fontsize=8, rotation=0, ha="right", va="center")
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return buffer.getvalue()


def curve_png(steps: Sequence[float], values: Sequence[float], name: str) -> bytes:
    r"""A curve over the steps of a training, on a logarithmic scale where all values are positive."""

    def draw(axes: "Axes") -> None:
        axes.plot(steps, values, linewidth=1.2)
        axes.set_xlabel("training step")
        axes.set_ylabel(name)
        if min(values) > 0:
            axes.set_yscale("log")

    return figure_png(draw)
