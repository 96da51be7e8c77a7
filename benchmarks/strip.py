r"""Draws strip.png of the README: parts of pictures of docs/assets, unscaled, side by side.

python benchmarks/strip.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parents[1] / "docs" / "assets"
GAP, CAPTION = 24, 30  # pixels


def cells(name: str, side: int, rows: list[int], columns: list[int]) -> Image.Image:
    r"""Some cells of a grid of square pictures that are `side` pixels apart."""
    grid = Image.open(HERE / name).convert("RGB")
    found = Image.new("RGB", (side * len(columns), side * len(rows)), "white")
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            left, top = column * side, row * side
            found.paste(grid.crop((left, top, left + side, top + side)), (j * side, i * side))
    return found


def strip(parts: list[tuple[Image.Image, str]]) -> Image.Image:
    r"""Pictures beside each other, each above its caption."""
    height = max(part.height for part, _ in parts)
    width = sum(part.width for part, _ in parts) + GAP * (len(parts) - 1)
    found = Image.new("RGB", (width, height + CAPTION), "white")
    draw, font, left = ImageDraw.Draw(found), ImageFont.load_default(18), 0
    for part, caption in parts:
        found.paste(part, (left, (height - part.height) // 2))
        draw.text((left + part.width / 2, height + CAPTION / 2), caption, fill="black", font=font, anchor="mm")
        left += part.width + GAP
    return found


if __name__ == "__main__":
    curve = Image.open(HERE / "rrcm_curve_mnist.png").convert("RGBA")
    white = Image.new("RGBA", curve.size, "white")
    strip(
        [
            (cells("mnist_20_minutes.png", 87, [0, 1, 2, 3], [0, 1, 2, 3, 4]), "samples"),
            (Image.alpha_composite(white, curve).convert("RGB"), "certified accuracy"),
            (cells("despeckle.png", 124, [3, 4, 6], [1, 3, 0]), "speckled, restored, clean"),
        ]
    ).save(HERE / "strip.png", optimize=True)
