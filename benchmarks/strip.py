r"""Draws strip.png of the README: parts of pictures of docs/assets, side by side.

python benchmarks/strip.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parents[1] / "docs" / "assets"
GAP, CAPTION, SIZE = 20, 26, 15  # pixels
Part = tuple[Image.Image, str]


def cells(name: str, side: int, rows: list[int], columns: list[int]) -> Image.Image:
    r"""Some cells of a grid of square pictures that are `side` pixels apart."""
    grid = Image.open(HERE / name).convert("RGB")
    found = Image.new("RGB", (side * len(columns), side * len(rows)), "white")
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            left, top = column * side, row * side
            found.paste(grid.crop((left, top, left + side, top + side)), (j * side, i * side))
    return found


def captioned(part: Image.Image, caption: str) -> Image.Image:
    r"""A picture above its caption."""
    found = Image.new("RGB", (part.width, part.height + CAPTION), "white")
    found.paste(part)
    place = part.width / 2, part.height + CAPTION / 2
    ImageDraw.Draw(found).text(place, caption, fill="black", font=ImageFont.load_default(SIZE), anchor="mm")
    return found


def column(parts: list[Part]) -> Image.Image:
    r"""Pictures below each other, each above its caption."""
    made = [captioned(*part) for part in parts]
    found = Image.new("RGB", (max(part.width for part in made), sum(part.height for part in made)), "white")
    top = 0
    for part in made:
        found.paste(part, ((found.width - part.width) // 2, top))
        top += part.height
    return found


def row(parts: list[Image.Image]) -> Image.Image:
    r"""Pictures beside each other."""
    width = sum(part.width for part in parts) + GAP * (len(parts) - 1)
    found, left = Image.new("RGB", (width, max(part.height for part in parts)), "white"), 0
    for part in parts:
        found.paste(part, (left, 0))
        left += part.width + GAP
    return found


def scaled(name: str, height: int) -> Image.Image:
    r"""A figure on white, of a height."""
    picture = Image.open(HERE / name).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.resize((picture.width * height // picture.height, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    one_call = cells("flow_map_mnist.png", 28, [0, 1], [0, 1, 2, 3, 4, 5])
    samples = [
        (cells("mnist_20_minutes.png", 87, [0, 1], [0, 1, 2, 3]), "samples, 18 calls"),
        (one_call.resize((336, 112), Image.Resampling.NEAREST), "samples, one call"),
    ]
    between = [0, 2, 4, 6, 8, 10]
    paths = [
        (cells("smooth_mnist.png", 58, [6], between), "interpolation, trained without the regulariser"),
        (cells("smooth_mnist.png", 58, [8], between), "with it"),
        (cells("smooth_mnist.png", 58, [0], between), "another, without"),
        (cells("smooth_mnist.png", 58, [2], between), "with it"),
    ]
    speckle = [(cells("despeckle.png", 124, [4, 6], [1, 3]), "speckled, restored")]
    certified = [(scaled("certified_mnist.png", 290), "certified accuracy, MNIST")]  # single.png of dual.py
    row([column(part) for part in (samples, paths, speckle, certified)]).save(HERE / "strip.png", optimize=True)
