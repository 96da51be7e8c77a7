r"""report.html: a run in one self-contained page, with its most and least certain inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from scoregen.pictures import UNIT, Range, figure_png, has_ends, image_png
from scoregen.report import write_html
from scoregen.rng import Stream, generator
from scoregen.smoothing.attacks import attack_rows
from scoregen.smoothing.certificate import ABSTAIN
from scoregen.smoothing.dataset import LabelledData
from scoregen.smoothing.explanations import Explanation
from scoregen.smoothing.maps import caption, map_png
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.report import RHO, drawing, explained, table_rows
from scoregen.smoothing.results import Run

SHOWN = 8  # inputs of either kind
_PAGE = """{% extends "base.html" %}
{% from "parts.html" import numbers, picture, settings %}
{% block style %}
.inputs{display:grid;grid-template-columns:repeat(auto-fill,minmax({{ 20 if draws else 13 }}rem,1fr));gap:1.5rem}
.inputs .pair{display:flex;gap:.4rem}
.inputs img{width:6rem;height:6rem;object-fit:contain;image-rendering:pixelated}
.inputs span{color:var(--text)}
.inputs .wrong{color:var(--bad);font-weight:600}
{% endblock %}
{% macro view(look, alt) %}
{% if look is string %}<code>{{ look }}</code>{% else %}{{ picture(look, alt) }}{% endif %}
{% endmacro %}
{% macro gallery(inputs) %}
<div class="inputs">
{% for x in inputs %}<figure>
<div class="pair">{{ view(x.clean, "input " ~ x.index) }}{{ view(x.noisy, "input " ~ x.index ~ " with noise") }}
{% if x.map is not none %}{{ view(x.map, "map of input " ~ x.index) }}{% endif %}</div>
<figcaption><span{% if x.wrong %} class="wrong"{% endif %}>{{ x.predicted }}</span>, true {{ x.label }}<br>
{{ x.radius }}<br>{{ x.votes }}<br>{% if x.chosen %}{{ x.chosen }}<br>{% endif %}
{% if x.explained %}{{ x.explained }}<br>{% endif %}input {{ x.index }}</figcaption>
</figure>
{% endfor %}</div>
{% endmacro %}
{% block content %}
<p>With probability at least {{ confidence }} over the noise drawn for an input, the smoothed classifier gives its label
to every input closer (in {{ norm }}) than the radius. This guarantee is for the smoothed classifier, not for the
network alone.</p>
<h2>Certified accuracy</h2>
{{ numbers(rows) }}
<p>In parentheses: a lower bound of the accuracy that holds with probability {{ together }} for all
inputs and rows at once.</p>
<figure>{{ picture(curve, "certified accuracy against radius") }}</figure>
{% if attacks %}<h2>Attack</h2>
{{ numbers(attacks) }}
<p>Projected gradient descent on the smoothed classifier, within multiples of the certified radius R of each certified
input. No certificate claims anything above R; a label that breaks below makes its certificate false.</p>{% endif %}
{% if draws %}<p>Maps: red raises the probability of the label under noise, blue lowers it. A value below two
standard errors is faded. Where a radius is given, the smoothed probability grows along the map at every input within
it (l2), with probability at least {{ confidence }} for an input. {{ draws }} draws an input.</p>{% endif %}

<h2>Most certain</h2>
{{ gallery(most) }}
{% if least %}<h2>Least certain</h2>
{{ gallery(least) }}{% endif %}
<h2>Settings</h2>
{{ settings(facts) }}
<p>Inputs: {{ inputs }}</p>
{% endblock %}
"""


@dataclass(frozen=True)
class _Shown:
    r"""An input on the page; its clean and noisy looks are PNG bytes, or a text if it is no image."""

    index: int
    clean: bytes | str
    noisy: bytes | str
    predicted: str
    label: str
    wrong: bool
    radius: str
    votes: str
    map: bytes | str | None = None
    explained: str = ""
    chosen: str = ""


def extremes(run: Run, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    r"""The records of the most and of the least certain inputs, by the lower bound of the winner's probability.

    None is among both: where there are few, each list has half of them.
    """
    order = sorted(run.records, key=lambda record: (record["p_lower"], record["index"]))
    most = min(count, (len(order) + 1) // 2)
    return order[::-1][:most], order[: min(count, len(order) - most)]


def write_page(
    path: str | Path,
    run: Run,
    data: LabelledData,
    noise: AbstractNoise,
    *,
    count: int = SHOWN,
    class_names: Sequence[str] | None = None,
    data_range: Range | None = UNIT,
    explanations: Mapping[int, Explanation] | None = None,
    attacks: Run | None = None,
) -> None:
    r"""Writes the page, whole or not at all.

    Args:
        path: of the HTML file.
        run: the certificates.
        data: data[i] -> (x, label); images (C, H, W) are shown, clean and noisy, other inputs as numbers.
        noise: that they were certified under.
        count: inputs of either kind.
        class_names: instead of numbers. data_range: of the units of images; they are numbers where it has no ends.
        explanations: by the index of the input, of those that are shown with a map.
        attacks: of `attack_dataset` on the run.
    """
    header = run.header
    names = list(class_names or ()) + [str(k) for k in range(len(class_names or ()), header["num_classes"])]

    def shown(record: Mapping[str, Any]) -> _Shown:
        x = data[record["index"]][0]
        noisy = noise.sample(x, 1, generator(header["seed"], Stream.ESTIMATION, record["index"], 0))[0]
        shown = _shown(record, _look(x, data_range), _look(noisy, data_range), names, noise)
        return _with_map(
            replace(shown, chosen=_chosen(record, header)), (explanations or {}).get(record["index"]), names
        )

    most, least = (list(map(shown, records)) for records in extremes(run, count))
    write_html(
        Path(path),
        _PAGE,
        title="Certified robustness",
        confidence=f"{1 - Decimal(repr(header['alpha'])):f}",
        together=f"{1 - RHO:g}",
        norm=header["norm"],
        rows=table_rows({"certified accuracy, %": run}, implies=noise.implies),
        curve=figure_png(drawing({"certified": run})),
        attacks=attack_rows(attacks) if attacks is not None else None,
        most=most,
        least=least,
        facts=list(_settings(header)),
        inputs=_ranges(header["indices"]),
        draws=f"{next(iter(explanations.values())).n:,}" if explanations else "",
    )


def _settings(header: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    r"""The settings of a run, one (name, value) each; what was not set is left out, and digests are called so."""
    yield from _flat({f"digest of {key}" if key in _DIGESTS else key: value for key, value in header.items()})


_DIGESTS = ("labels", "inputs", "classifier", "answers")  # of a header; a description has a classifier of another kind


def _flat(header: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in header.items():
        if isinstance(value, Mapping):
            prefix = "" if key == "description" else f"{key}."
            yield from ((prefix + name, inner) for name, inner in _flat(value))
        elif value not in (None, "None") and key not in ("indices", "format", "step"):
            yield key, value


def _shown(
    record: Mapping[str, Any],
    clean: bytes | str,
    noisy: bytes | str,
    names: Sequence[str],
    noise: AbstractNoise,
) -> _Shown:
    counts = np.array(record["counts"])
    votes = ", ".join(f"{names[k]}: {counts[k]:,}" for k in np.argsort(-counts)[:3] if counts[k])
    return _Shown(
        index=record["index"],
        clean=clean,
        noisy=noisy,
        predicted="abstains" if record["predicted"] == ABSTAIN else f"label {names[record['predicted']]}",
        label=names[record["label"]],
        wrong=record["predicted"] != record["label"],
        radius=explained(f"radius {record['radius']:.12g}", noise.implies(record["radius"])),
        votes=f"{votes} of {record['n']:,}",
    )


def _chosen(record: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    r"""Which expert of dual smoothing answered; empty elsewhere."""
    if "parts" not in header:
        return ""
    place = record["selector"]["predicted"]
    return "no expert was chosen" if place == ABSTAIN else f"by {header['parts'][f'expert {place}']['noise']}"


def _with_map(shown: _Shown, found: Explanation | None, names: Sequence[str]) -> _Shown:
    if found is None:
        return shown
    drawn = map_png(found) if isinstance(shown.clean, bytes) else _look(found.direction, None)
    return replace(shown, map=drawn, explained=caption(found, f"label {names[found.label]}"))


def _look(x: Tensor, data_range: Range | None) -> bytes | str:
    if x.ndim == 3 and x.shape[0] in (1, 3) and data_range is not None and has_ends(data_range):
        return image_png(x, data_range=data_range)
    return ", ".join(f"{v:.3g}" for v in x.flatten()[:8].tolist())


def _ranges(indices: Sequence[int]) -> str:
    if len(indices) > 2 and len(steps := set(np.diff(indices).tolist())) == 1:
        return f"{indices[0]}, {indices[1]}, ... {indices[-1]} (every {steps.pop()})"
    return ", ".join(map(str, indices))
