r"""Pictures: grids of samples, strips of a trajectory, curves; vectors as scatter plots.

Images are in the units of their data; the range of these units becomes black to white.
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoregen.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Range = tuple[float, float]
UNIT: Range = (0.0, 1.0)
PAPER = "#fbfbfd"  # behind curves and labels, on light pages and on dark ones
_LONG_SIDE = 900  # pixels that a picture should roughly have, small images are enlarged by whole factors


def is_image(x: Tensor) -> bool:
    r"""Whether a batch (B, *S) holds images (C, H, W) that can be shown."""
    return x.ndim == 4 and x.shape[1] in (1, 3)


def has_ends(data_range: Range | None) -> bool:
    r"""Whether the units of some data have a lowest and a highest value, which 8 bits can span."""
    return data_range is not None and all(map(math.isfinite, data_range))


def fractions(x: Tensor, data_range: Range = UNIT) -> Tensor:
    r"""Images in the units of their data as fractions of the range."""
    low, high = data_range
    return (x - low) / (high - low)


def save_grid(
    x: Tensor, path: Path, columns: int | None = None, title: str | None = None, *, data_range: Range | None = UNIT
) -> Path:
    r"""Writes a batch as one PNG: images as a grid, vectors as a scatter plot of the first two coordinates.

    Args:
        x: (B, C, H, W) or (B, D).
        path: of the PNG, written whole or not at all.
        columns: of the grid; None: about as many as rows.
        title: of a scatter plot.
        data_range: of the units of images; None, or without an end: black and white are the extremes of the batch.
    """
    if not is_image(x):
        return _save_scatter(x, path, title)
    x = x.detach().float().cpu()
    ends = data_range if data_range is not None and has_ends(data_range) else (x.min().item(), x.max().item())
    x = fractions(x, ends).nan_to_num(0).clamp(0, 1)
    columns = columns or max(1, round(len(x) ** 0.5))
    rows = -(-len(x) // columns)
    channels, height, width = x.shape[1:]
    canvas = torch.ones(channels, rows * (height + 1) - 1, columns * (width + 1) - 1)
    for i, image in enumerate(x):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        canvas[:, top : top + height, left : left + width] = image
    return save_image(canvas, path, enlarge=True)


def to_bytes(x: Tensor, data_range: Range = UNIT) -> Tensor:
    r"""Images rounded to 8 bits, which span the range."""
    return (fractions(x.detach().float().cpu(), data_range).clamp(0, 1) * 255).round().to(torch.uint8)


def save_image(image: Tensor, path: Path, enlarge: bool = False, data_range: Range = UNIT) -> Path:
    r"""Writes one image (C, H, W) as a PNG, whole or not at all."""
    png = image_png(image, enlarge, data_range)
    return write_atomically(path, lambda file: file.write(png))


def image_png(image: Tensor, enlarge: bool = False, data_range: Range = UNIT) -> bytes:
    r"""One image (C, H, W) as a PNG.

    Args:
        enlarge: by a whole factor, to about 900 pixels.
        data_range: range of the units of the image.
    """
    from PIL import Image

    pixels = to_bytes(image, data_range).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if enlarge:
        factor = max(1, _LONG_SIDE // max(picture.size))
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def figure(path: Path, draw: "Callable[[Axes], None]", size: tuple[float, float] = (6.0, 3.5)) -> Path:
    r"""Writes a matplotlib figure as a PNG, whole or not at all; `draw(axes)` fills it."""
    png = figure_png(draw, size)
    return write_atomically(path, lambda file: file.write(png))


def figure_png(draw: "Callable[[Axes], None]", size: tuple[float, float] = (6.0, 3.5)) -> bytes:
    r"""A matplotlib figure as a PNG; `draw(axes)` fills it, size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = Figure(figsize=size, layout="constrained", dpi=110, facecolor=PAPER)
    FigureCanvasAgg(canvas)
    draw(canvas.add_subplot())
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return buffer.getvalue()


def save_curve(steps: Sequence[float], values: Sequence[float], path: Path, name: str) -> Path:
    r"""Writes a curve against the step, with its running mean."""

    def draw(axes: "Axes") -> None:
        axes.plot(steps, values, linewidth=0.8, alpha=0.4, color="tab:blue", label="mean between log steps")
        window = max(1, len(values) // 20)
        smooth = torch.tensor(values, dtype=torch.float64).unfold(0, window, 1).mean(1)
        axes.plot(steps[window - 1 :], smooth.numpy(), color="tab:blue", label=f"running mean of {window}")
        axes.set_xlabel("step")
        axes.set_ylabel(name)
        axes.set_yscale("log")
        axes.legend()

    return figure(path, draw)


def _save_scatter(x: Tensor, path: Path, title: str | None) -> Path:
    points = x.detach().float().cpu().flatten(1).numpy()

    def draw(axes: "Axes") -> None:
        if points.shape[1] == 1:
            axes.hist(points[:, 0], bins=60)
        else:
            axes.scatter(points[:, 0], points[:, 1], s=4, alpha=0.5)
            axes.set_aspect("equal")
        axes.set_title(title or f"{len(points)} samples")

    return figure(path, draw, (5.0, 4.5))
