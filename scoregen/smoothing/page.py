r"""report.html: a run in one self-contained page, with its most and least certain inputs."""

import base64
import html
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from scoregen.rng import generator
from scoregen.smoothing.methods import ESTIMATION
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.report import RHO, curve, explained, table
from scoregen.smoothing.results import Run

STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2rem .6rem;text-align:right}
td:first-child,th:first-child,.settings td{text-align:left}.inputs{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;width:13rem}figure img{width:6rem;height:6rem;object-fit:contain;image-rendering:pixelated}
figcaption{font-size:13px}.wrong{color:#b00}"""


def extremes(run: Run, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    r"""The records of the most and of the least certain inputs, by the lower bound of the winner's probability."""
    order = sorted(run.records, key=lambda record: (record["p_lower"], record["index"]))
    return order[::-1][:count], order[:count]


def write_page(
    path: str | Path,
    run: Run,
    data: Sequence[tuple[Tensor, Any]],
    noise: AbstractNoise,
    count: int = 8,
    class_names: Sequence[str] | None = None,
) -> None:
    r"""Writes the page.

    Args:
        path: of the HTML file.
        run: the certificates.
        data: data[i] -> (x, label); images (C, H, W) in [0, 1] are shown, clean and noisy, other inputs as numbers.
        noise: that they were certified under.
        count: inputs of either kind.
        class_names: instead of numbers.
    """
    names = [str(k) for k in range(run.header["num_classes"])] if class_names is None else class_names
    most, least = extremes(run, count)

    def show(records: list[dict[str, Any]]) -> str:
        return "".join(_input(record, data[record["index"]][0], noise, run.header["seed"], names) for record in records)

    settings = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(str(value))}</td></tr>"
        for key, value in _settings(run.header)
    )
    body = f"""<h1>Certified robustness</h1>
<p>For each input, with probability at least {1 - run.header["alpha"]:g} over the noise drawn, the smoothed classifier
gives the same label to every input closer (in {html.escape(run.header["norm"])}) than the radius. The guarantee is for
the smoothed classifier, not for the network alone. In parentheses: the accuracy that holds, for the inputs of the row
together, with probability {1 - RHO:g}.</p>
{_table(table({"certified accuracy, %": run}, implies=noise.implies))}
<p><img alt="certified accuracy against radius" src="{_curve({"certified": run})}"></p>
<h2>Most certain</h2><div class="inputs">{show(most)}</div>
<h2>Least certain</h2><div class="inputs">{show(least)}</div>
<h2>Settings</h2><table class=settings>{settings}</table>
<p>Inputs: {html.escape(_ranges(run.header["indices"]))}</p>"""
    head = f"<meta charset=utf-8><title>Certified robustness</title><style>{STYLE}</style>"
    Path(path).write_text(f"<!doctype html><html lang=en>{head}{body}</html>", encoding="utf-8")


def _settings(header: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    r"""What was certified and how, one line a value; what was not set is left out."""
    for key, value in header.items():
        if isinstance(value, Mapping):
            prefix = "" if key == "description" else f"{key}."
            yield from ((prefix + name, inner) for name, inner in _settings(value))
        elif value is not None and key not in ("indices", "format", "step"):
            yield key, value


def _input(record: Mapping[str, Any], x: Tensor, noise: AbstractNoise, seed: int, names: Sequence[str]) -> str:
    noisy = noise.sample(x, 1, generator(seed, ESTIMATION, record["index"], 0))[0]
    predicted = "abstains" if record["predicted"] == -1 else f"label {names[record['predicted']]}"
    wrong = "" if record["predicted"] == record["label"] else " class=wrong"
    counts = np.array(record["counts"])
    votes = ", ".join(f"{names[k]}: {counts[k] / counts.sum():.1%}" for k in np.argsort(-counts)[:3] if counts[k])
    radius = html.escape(explained(f"radius {record['radius']:.6f}", noise.implies(record["radius"])))
    caption = (
        f"<span{wrong}>{html.escape(predicted)}</span>, true {html.escape(names[record['label']])}<br>"
        f"{radius}<br>{html.escape(votes)} of {record['n']:,}<br>input {record['index']}"
    )
    return f"<figure>{_picture(x)} {_picture(noisy)}<figcaption>{caption}</figcaption></figure>"


def _picture(x: Tensor) -> str:
    if x.ndim != 3 or x.shape[0] not in (1, 3):
        return f"<code>{html.escape(', '.join(f'{v:.3g}' for v in x.flatten()[:8].tolist()))}</code>"
    from matplotlib.image import imsave

    pixels = x.double().clamp(0, 1).expand(3, *x.shape[1:]).permute(1, 2, 0).cpu().numpy()
    return f'<img alt="input" src="{_encoded(lambda file: imsave(file, pixels, format="png"))}">'


def _encoded(write: Callable[[io.BytesIO], None]) -> str:
    buffer = io.BytesIO()
    write(buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _curve(runs: Mapping[str, Run]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "curve.png")
        curve(runs, path)
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _table(markdown: str) -> str:
    lines = [[html.escape(cell.strip()) for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    head = "".join(f"<th>{cell}</th>" for cell in lines[0])
    rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines[2:])
    return f"<table><tr>{head}</tr>{rows}</table>"


def _ranges(indices: Sequence[int]) -> str:
    if len(indices) > 2 and len(steps := set(np.diff(indices).tolist())) == 1:
        return f"{indices[0]}, {indices[1]}, ... {indices[-1]} (every {steps.pop()})"
    return ", ".join(map(str, indices))
