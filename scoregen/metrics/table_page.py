r"""report.html of a table: its numbers, each column of it beside the real one, and both association matrices.

Drawings are vectors in the colours of the page, so that they are readable on a dark one too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scoregen.metrics.associations import associations
from scoregen.metrics.marginals import shares
from scoregen.metrics.report import Report
from scoregen.metrics.table_columns import TableColumn
from scoregen.report import write_html

Columns = Mapping[str, TableColumn]
SHOWN, MATRIX = 60, 40  # columns with a drawing, and in the matrices
_BINS, _BARS = 30, 12
_PAGE = """{% extends "base.html" %}
{% from "parts.html" import numbers, settings %}
{% block style %}
:root{--real:#8a8a96;--made:#0b6bcb;--plus:#c8442c;--minus:#0b6bcb}
@media(prefers-color-scheme:dark){:root{--real:#7d7d88;--made:#5db0ff;--plus:#ff8a6c;--minus:#5db0ff}}
.numbers tr>:last-child{text-align:left;white-space:normal;min-width:16rem}
.key{display:flex;gap:1.5rem;color:var(--muted);font-size:.875rem;margin:0 0 1rem}
.key i{display:inline-block;width:.9rem;height:.9rem;margin-right:.4rem;vertical-align:-.1rem}
.columns{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(15rem,100%),1fr));gap:1.5rem}
.columns b,.matrices b{display:block;font-weight:500;margin-bottom:.3rem;overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{fill:var(--muted);font:11px system-ui,sans-serif}
.real{fill:var(--real);opacity:.55}
.made{fill:none;stroke:var(--made);stroke-width:2}
.bar{fill:var(--made)}
.plus{fill:var(--plus)}.minus{fill:var(--minus)}
.frame{fill:none;stroke:var(--line)}
.matrices{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(18rem,100%),1fr));gap:1.5rem}
.names{columns:14rem;color:var(--muted);font-size:.875rem;padding-left:1.6rem}
{% endblock %}
{% macro histogram(c) %}
<svg viewBox="0 0 240 110" role="img" aria-label="{{ c.name }}: histogram of real and synthetic values">
{% for x, y, h in c.real %}<rect class="real" x="{{ x }}" y="{{ y }}" width="{{ c.width }}" height="{{ h }}"/>
{% endfor %}<path class="made" d="{{ c.path }}"/>
<line x1="0" x2="240" y1="90" y2="90" style="stroke:var(--line)"/>
<text x="0" y="104">{{ c.low }}</text><text x="240" y="104" text-anchor="end">{{ c.high }}</text></svg>
{% endmacro %}
{% macro bars(c) %}
<svg viewBox="0 0 240 {{ c.height }}" role="img" aria-label="{{ c.name }}: shares of real and synthetic values">
{% for b in c.bars %}<rect class="real" x="90" y="{{ b.y }}" width="{{ b.real }}" height="7"/>
<rect class="bar" x="90" y="{{ b.y + 7 }}" width="{{ b.made }}" height="4"/>
<text x="84" y="{{ b.y + 9 }}" text-anchor="end">{{ b.name }}</text>
<text x="{{ b.end }}" y="{{ b.y + 9 }}">{{ b.text }}</text>
{% endfor %}</svg>
{% endmacro %}
{% macro matrix(m) %}
<figure><b>{{ m.title }}</b>
<svg viewBox="-18 -14 {{ m.side + 20 }} {{ m.side + 16 }}" role="img" aria-label="{{ m.title }}">
{% for c in m.cells %}<rect class="{{ c.sign }}" x="{{ c.x }}" y="{{ c.y }}" width="{{ m.cell }}" height="{{ m.cell }}"
fill-opacity="{{ c.size }}"><title>{{ c.text }}</title></rect>
{% endfor %}<rect class="frame" width="{{ m.side }}" height="{{ m.side }}"/>
{% for t in m.ticks %}<text x="-4" y="{{ t.at + 4 }}" text-anchor="end">{{ t.text }}</text>
<text x="{{ t.at }}" y="-4" text-anchor="middle">{{ t.text }}</text>
{% endfor %}</svg></figure>
{% endmacro %}
{% block content %}
{{ numbers(rows) }}
{% for text in warnings %}<p>{{ text[0]|upper }}{{ text[1:] }}</p>
{% endfor %}
<h2>Columns</h2>
<p class="key"><span><i style="background:var(--real);opacity:.55"></i>real</span>
<span><i style="background:var(--made)"></i>synthetic</span></p>
{% if left_out %}<p>The first {{ columns|length }} of {{ left_out }} columns; the numbers are of all.</p>{% endif %}
<div class="columns">
{% for c in columns %}<figure><b>{{ c.name }}</b>{{ bars(c) if c.bars is defined else histogram(c) }}
<figcaption>{{ c.caption }}</figcaption></figure>
{% endfor %}</div>
{% if matrices %}<h2>Associations</h2>
<p>Spearman's rho between numbers (orange above 0, blue below), Cramer's V between categories, the correlation ratio of
a number on a category. The stronger the colour, the stronger the association; differences are shown three times as
strong.</p>
<div class="matrices">{% for m in matrices %}{{ matrix(m) }}{% endfor %}</div>
<ol class="names">{% for name in names %}<li>{{ name }}</li>{% endfor %}</ol>
{% if matrix_of %}<p>The first {{ names|length }} of {{ matrix_of }} columns; the numbers are of all.</p>{% endif %}
{% endif %}
<h2>Protocol</h2>
{{ settings(facts) }}
{% endblock %}
"""


def write_table_page(path: Path, synthetic: Columns, training: Columns, report: Report) -> Path:
    r"""Writes the page, whole or not at all.

    Args:
        path: of the HTML file. synthetic, training: the columns. report: the numbers, with details of `evaluate_table`.
    """
    names = list(training)
    details = report.details["columns"]
    drawn = [_drawn(name, synthetic[name], training[name], details[name]) for name in names[:SHOWN]]
    few = names[:MATRIX]
    return write_html(
        path,
        _PAGE,
        title="Synthetic and real table",
        rows=[(*row[:2], *row[3:]) for row in report.rows()],  # tables have no intervals
        warnings=report.warnings,
        columns=drawn,
        left_out=len(names) if len(names) > SHOWN else 0,
        matrices=_matrices({n: synthetic[n] for n in few}, {n: training[n] for n in few}) if len(few) > 1 else [],
        names=few,
        matrix_of=len(names) if len(names) > MATRIX else 0,
        facts=[(name, value) for name, value in report.protocol.items() if value is not None],
    )


@dataclass(frozen=True)
class _Axis:
    r"""The bins of a histogram, in the coordinate that is drawn."""

    edges: np.ndarray
    logarithmic: bool

    def counts(self, values: np.ndarray) -> np.ndarray:
        r"""Shares of the values by bin; what lies beyond an end belongs to the last bin there."""
        if self.logarithmic:
            values = np.log(np.maximum(values, 1e-300))
        found = np.histogram(values.clip(self.edges[0], self.edges[-1]), self.edges)[0]
        share: np.ndarray = found / max(len(values), 1)
        return share


def _drawn(name: str, made: TableColumn, real: TableColumn, detail: Mapping[str, object]) -> dict[str, object]:
    r"""What the template draws of a column."""
    caption = f"{detail['measure']} {_short(detail['value'])}"
    caption += f", floor {_short(detail['floor'])}" if detail["floor"] is not None else ""
    for what, share in (("missing", _missing), *([("zeros", _zeros)] if real.kind == "zero_positive" else [])):
        if share(real) or share(made):
            caption += f"; {what}: {100 * share(real):.1f} % real, {100 * share(made):.1f} % synthetic"
    drawing = _histogram(made, real) if real.numeric else _bars(made, real)
    return {"name": name, "caption": caption, **drawing}


def _missing(column: TableColumn) -> float:
    return float((~column.present).mean())


def _zeros(column: TableColumn) -> float:
    return float((column.known == 0).mean())


def _histogram(made: TableColumn, real: TableColumn) -> dict[str, object]:
    shown = [c.known[c.known > 0] if real.kind == "zero_positive" else c.known for c in (real, made)]
    logarithmic = real.kind in ("positive", "zero_positive") and all((x > 0).all() for x in shown)
    axis = _axis(shown[0], logarithmic, real.kind == "integer")
    heights = [axis.counts(x) for x in shown]
    top = max(float(h.max()) for h in heights) or 1.0
    width = round(240 / len(heights[0]), 2)
    tall = [round(84 * float(h) / top, 1) for h in heights[0]]
    bars = [(round(i * width, 1), round(90 - h, 1), h) for i, h in enumerate(tall)]
    steps = [f"M0 90V{90 - 84 * float(heights[1][0]) / top:.1f}"]
    steps += [f"H{(i + 1) * width:.1f}V{90 - 84 * float(h) / top:.1f}" for i, h in enumerate([*heights[1][1:], 0.0])]
    ends = (np.exp(axis.edges) if logarithmic else axis.edges)[[0, -1]]
    low, high = (_day(x) if real.kind == "date" else f"{x:.4g}" for x in ends)
    label = f"{high} (log)" if logarithmic else high
    return {"real": bars, "width": width, "path": "".join(steps), "low": low, "high": label}


def _axis(values: np.ndarray, logarithmic: bool, whole: bool) -> _Axis:
    r"""Bins between the 0.5 % and 99.5 % quantiles of the real values."""
    values = np.log(values) if logarithmic else values
    low, high = np.quantile(values, (0.005, 0.995)) if len(values) else (0.0, 1.0)
    if whole and high - low < _BINS:
        return _Axis(np.arange(np.floor(low), np.ceil(high) + 2) - 0.5, logarithmic)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return _Axis(np.linspace(low, high, _BINS + 1), logarithmic)


def _day(days: float) -> str:
    return str(np.datetime64(0, "D") + np.timedelta64(round(days), "D"))


def _bars(made: TableColumn, real: TableColumn) -> dict[str, object]:
    r"""Bars of the most frequent values, the others together."""
    first, second = shares(real), shares(made)
    order = sorted(first.keys() | second.keys(), key=lambda k: (-first.get(k, 0.0), k))
    kept = order if len(order) <= _BARS else order[: _BARS - 1]
    pairs = [(name, first.get(name, 0.0), second.get(name, 0.0)) for name in kept]
    if len(kept) < len(order):
        others = [sum(x.get(name, 0.0) for name in order[len(kept) :]) for x in (first, second)]
        pairs.append((f"{len(order) - len(kept)} others", others[0], others[1]))
    scale = 85 / max(max(a, b) for _, a, b in pairs)
    found = [
        {
            "name": name if len(name) <= 14 else name[:13] + "…",
            "y": 17 * i,
            "real": round(a * scale, 1),
            "made": round(b * scale, 1),
            "end": round(95 + max(a, b) * scale, 1),
            "text": f"{100 * a:.0f}, {100 * b:.0f} %" if a >= 0.095 else f"{100 * a:.1f}, {100 * b:.1f} %",
        }
        for i, (name, a, b) in enumerate(pairs)
    ]
    return {"bars": found, "height": 17 * len(found)}


def _matrices(made: Columns, real: Columns) -> list[dict[str, object]]:
    first, second = associations(real), associations(made)
    drawn = [("real", first.values, 1.0), ("synthetic", second.values, 1.0)]
    drawn += [("difference: synthetic - real", second.values - first.values, 3.0)]
    return [_matrix(title, values, list(real), strength) for title, values, strength in drawn]


def _matrix(title: str, values: np.ndarray, names: list[str], strength: float) -> dict[str, object]:
    count, side = len(names), 260
    cell = side / count
    cells = [
        {
            "x": round(j * cell, 1),
            "y": round(i * cell, 1),
            "size": round(min(1.0, strength * abs(float(values[i, j]))), 2),
            "sign": "plus" if values[i, j] >= 0 else "minus",
            "text": f"{names[i]}, {names[j]}: {values[i, j]:.2f}",
        }
        for i in range(count)
        for j in range(count)
    ]
    every = -(-count // 20)
    ticks = [{"at": round((i + 0.5) * cell, 1), "text": str(i + 1)} for i in range(0, count, every)]
    return {"title": title, "side": side, "cell": round(cell, 2), "cells": cells, "ticks": ticks}


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
