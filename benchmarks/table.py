r"""Evaluations side by side, from metrics.json files: the rows of docs/results.md, and curves over network calls.

python benchmarks/table.py outputs/evaluation/A outputs/evaluation/sweep/heun_035_calls ...
python benchmarks/table.py --plot FILE.png "tuned=FOLDER,FOLDER" "teacher=FOLDER,FOLDER,FOLDER"
python benchmarks/table.py --grids FILE.png FOLDER FOLDER        # the first samples, six columns each, side by side
python benchmarks/table.py --strips FILE.png FOLDER FOLDER       # interpolations of two pairs, a row for each model
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from scoregen.metrics.report import Number
from scoregen.metrics.sweep import Point, save_figure

NAMES = ("FD", "KD", "precision", "recall")


def numbers(folder: Path) -> dict[str, dict]:
    r"""The numbers of an evaluation by their names, "FD" and "KD" without the extractor's."""
    found = json.loads((folder / "metrics.json").read_text())["metrics"]
    return {number["name"].split("-")[0]: number for number in found}


def row(folder: Path) -> str:
    r"""One line of the table."""
    found = numbers(folder)
    cells = [f"{found[name]['value']:.4g} ({found[name]['floor']:.3g})" for name in NAMES]
    protocol = found["FD"]["protocol"]
    calls = protocol["network_calls"] or ""
    return f"| {folder.parent.name}/{folder.name} | {calls} | {' | '.join(cells)} | {protocol['generated_images']} |"


def points(curve: str) -> list[Point]:
    r"""NAME=FOLDER,FOLDER,...: the Frechet distances of one curve."""
    name, folders = curve.split("=", 1)
    found = [numbers(Path(folder))["FD"] for folder in folders.split(",")]
    calls = [number.pop("protocol")["network_calls"] for number in found]
    return [Point(name, k, k, Number(**number)) for k, number in zip(calls, found, strict=True)]


def grids(folders: list[str], path: Path, rows: int = 6, columns: int = 6) -> Path:
    r"""The first samples of each evaluation: of one seed, so images in the same place come from the same noise."""
    from scoregen.pictures import save_image

    panels = []
    for folder in folders:
        file = next(f for f in (Path(folder, "samples.npz"), Path(folder, "samples", "samples.npz")) if f.exists())
        images = np.load(file)["images"][: rows * columns].clip(0, 1)
        channels, side = images.shape[1:3]
        grid = images.reshape(rows, columns, channels, side, side).transpose(2, 0, 3, 1, 4)
        panel = grid.reshape(channels, rows * side, columns * side)
        panels.append(np.pad(panel, ((0, 0), (0, 0), (0, 4)), constant_values=1.0))
    return save_image(torch.from_numpy(np.concatenate(panels, axis=2)[:, :, :-4]), path, enlarge=True)


def strips(folders: list[str], path: Path, pairs: tuple[int, ...] = (0, 2), pictured: int = 8) -> Path:
    r"""The same pairs of several runs of `scoregen.metrics smoothness`, whose strips.png show `pictured` pairs each."""
    from PIL import Image

    from scoregen.pictures import save_image

    pixels = [torch.from_numpy(np.array(Image.open(Path(folder, "strips.png")))) / 255 for folder in folders]
    height = (len(pixels[0]) + 2) // pictured  # of a row and the line below it
    rows = [one[pair * height : pair * height + height - 2] for pair in pairs for one in pixels]
    return save_image(torch.cat([torch.nn.functional.pad(row, (0, 0, 0, 2), value=1.0) for row in rows])[None], path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="draw curves NAME=FOLDER,FOLDER instead of printing rows")
    parser.add_argument("--grids", type=Path, help="draw samples instead")
    parser.add_argument("--strips", type=Path, help="draw interpolations instead")
    parser.add_argument("evaluations", nargs="+")
    options = parser.parse_args()
    if options.plot:
        print(save_figure([point for curve in options.evaluations for point in points(curve)], options.plot))
        return
    for path, draw in ((options.grids, grids), (options.strips, strips)):
        if path:
            print(draw(options.evaluations, path))
            return
    print(f"| evaluation | calls | {' | '.join(f'{name} (floor)' for name in NAMES)} | n |")
    print("|---" * (len(NAMES) + 3) + "|")
    for folder in options.evaluations:
        print(row(Path(folder)))


if __name__ == "__main__":
    main()
