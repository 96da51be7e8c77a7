r"""report.html of a restoration: its measures, and some images before and after, with their ratio and uncertainty."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from scoregen.pictures import image_png
from scoregen.report import write_html
from scoregen.restoration.altered import Altered
from scoregen.restoration.noise import Noise
from scoregen.restoration.review import MOST, Measures, Review, View, summary
from scoregen.storage import as_json, write_json

SHOWN, _SIDE, _ROWS = 8, 512, 50  # images on the page, the side of what is shown of each, lines of its table
_PAGE = """{% extends "base.html" %}
{% from "parts.html" import numbers, picture, settings %}
{% block style %}
.looks{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(13rem,45%),1fr));gap:1rem}
.looks img{width:100%;image-rendering:pixelated}
{% endblock %}
{% block content %}
<p>{{ summary[0]|upper }}{{ summary[1:] }}.</p>
{% for line in altered %}<p>{{ line[0]|upper }}{{ line[1:] }}.</p>
{% endfor %}<p>{{ explained }}</p>
{% if peak %}<p>PSNR and SSIM: of intensities, against the clean images, white at {{ peak }}.</p>{% endif %}
{% for image in images %}
<h2>{{ image.name }}</h2>
<div class="looks">
{% for png, caption in image.pictures %}<figure>{{ picture(png, caption) }}
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}</div>
{% endfor %}
<h2>Measures</h2>
{% if left_out %}<p>{{ rows|length - 1 }} images of {{ left_out }}, evenly spread; all that were measured are in
measures.json.</p>{% endif %}
{{ numbers(rows) }}
<h2>Settings</h2>
{{ settings(facts.items()) }}
{% endblock %}
"""


@dataclass(frozen=True)
class _Image:
    r"""An image on the page, and (PNG, caption) of its pictures."""

    name: str
    pictures: list[tuple[bytes, str]]


def write_review(review: Review, facts: Mapping[str, Any], altered: Altered | None = None) -> list[str]:
    r"""Measures the results of a restoration, and writes measures.json and report.html beside them.

    Args:
        review: the results. facts: settings to be shown. altered: restored values that were changed; None: none.

    Returns:
        A line that sums up, and one for each kind of change.
    """
    altered = altered or Altered()
    shapes = [plane.shape for scene in review.scenes for plane in scene.planes]
    told = altered.lines(sum(math.prod(shape) for shape in shapes))
    total = len(shapes)
    found = [review.measures(*place) for place in review.planes(MOST)]
    line = summary(found, review.noise)
    peak = None if review.clean is None else review.clean.peak or "the brightest clean value of an image"
    records = {**asdict(review.noise), "images": total, "psnr_peak": peak, "altered": asdict(altered)}
    records |= {"measured": [one.record() for one in found]}
    write_json(review.out / "measures.json", as_json(records))
    rows = found[:: -(-len(found) // _ROWS)]
    write_html(
        review.out / "report.html",
        _PAGE,
        title="Restored images",
        summary=line,
        altered=told,
        explained=review.noise.explained(),
        peak=peak,
        images=[_image(review, *place) for place in review.planes(SHOWN)],
        rows=[["image", *(name.replace("_", " ") for name in rows[0].values)], *map(_row, rows)],
        left_out=total if total > len(rows) else 0,
        facts={name: value for name, value in facts.items() if value is not None},
    )
    return [line, *told]


def _row(one: Measures) -> list[str]:
    values = ("-" if math.isnan(value) else f"{value:.4g}" for value in one.values.values())
    return [_name(one.scene, one.plane), *values]


def _name(scene: str, plane: int) -> str:
    return f"{scene} [{plane}]" if plane else scene


def _image(review: Review, scene: int, plane: int) -> _Image:
    shape = review.scenes[scene].planes[plane]
    top, left = (max(0, (length - _SIDE) // 2) for length in (shape.height, shape.width))
    view = review.view(scene, plane, top, min(shape.height, top + _SIDE), deviation=True)
    columns = slice(left, left + _SIDE)
    part = "" if max(shape.height, shape.width) <= _SIDE else f", {_SIDE} pixels from the middle of "
    size = f"{part}{shape.width} x {shape.height}" if part else f", {shape.width} x {shape.height}"
    pictures = _pictures(view, columns, review.noise, review.units[scene][plane].scale)
    return _Image(_name(review.scenes[scene].name, plane) + size, list(pictures))


def _pictures(view: View, columns: slice, noise: Noise, scale: float) -> Iterator[tuple[bytes, str]]:
    before, after = (_coloured(x)[..., columns] for x in (view.observed, view.restored))
    white = _high(after, 0.995)
    yield _png(before.sqrt(), math.sqrt(white)), f"before: amplitudes, white from an intensity of {white:.3g}"
    yield _png(after.sqrt(), math.sqrt(white)), "after, on the same scale"
    if view.clean is not None:
        yield _png(_coloured(view.clean)[..., columns].sqrt(), math.sqrt(white)), "clean, on the same scale"
    yield _png(noise.picture(before, after, scale), 1.0), noise.legend
    if view.deviation is not None:
        spread = _coloured(view.deviation)[..., columns]
        top = _high(spread, 0.99)
        yield _png(spread, top), f"standard deviation / value: black 0, white from {top:.2g}"


def _coloured(x: Tensor) -> Tensor:
    r"""The channels that are shown: all of RGB, else the first."""
    return x if x.shape[0] in (1, 3) else x[:1]


def _high(x: Tensor, share: float) -> float:
    values = x[x.isfinite()].double()
    count = max(1, round(share * len(values)))
    return max(values.kthvalue(count).values.item(), 1e-12) if len(values) else 1.0


def _png(x: Tensor, white: float) -> bytes:
    return image_png((x / white).nan_to_num(0, 0, 0).float(), enlarge=False)
