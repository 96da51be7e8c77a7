r"""Self-contained HTML pages: pictures as data, numbers as tables, no script and no network.

A page is a jinja2 template that extends "base.html", which holds the style; its values are escaped. `write_report` is
the page of a training.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import DictLoader, Environment, StrictUndefined

from scoregen.storage import write_text

_STYLE = """
:root{color-scheme:light dark;--text:#1d1d21;--muted:#63636e;--line:#e2e2e8;--back:#fff;--panel:#f6f6f9;--bad:#b3261e}
@media(prefers-color-scheme:dark){
:root{--text:#e6e6ea;--muted:#9d9da8;--line:#37373f;--back:#17171b;--panel:#212127;--bad:#ff8a80}}
body{font:16px/1.55 system-ui,sans-serif;max-width:64rem;margin:2.5rem auto;padding:0 1.25rem;color:var(--text);
background:var(--back)}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 1.25rem}
h2{font-size:1.15rem;margin:2.75rem 0 .9rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
p{max-width:44rem}
figure{margin:0}
img{display:block;max-width:100%;height:auto;border-radius:4px;background:#fff}
figcaption{color:var(--muted);font-size:.875rem;line-height:1.45;margin-top:.45rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9375rem}
th,td{padding:.3rem 1.1rem .3rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:500;color:var(--muted)}
td{font-variant-numeric:tabular-nums}
tr>:last-child{padding-right:0;overflow-wrap:anywhere}
.numbers th,.numbers td{text-align:right;white-space:nowrap}
.numbers tr>:first-child{text-align:left;white-space:normal}
pre{background:var(--panel);padding:1rem;border-radius:6px;overflow:auto;max-height:32rem;font-size:.8125rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1.75rem}
"""
_BASE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style|safe }}{% block style %}{% endblock %}</style>
</head>
<body>
<h1>{{ title }}</h1>
{% block content %}{% endblock %}
</body>
</html>
"""
_PARTS = """{% macro settings(values) -%}
<div class="scroll"><table>
{% for name, value in values %}<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</table></div>
{%- endmacro %}
{% macro numbers(rows) -%}
<div class="scroll"><table class="numbers">
<tr>{% for cell in rows[0] %}<th scope="col">{{ cell }}</th>{% endfor %}</tr>
{% for row in rows[1:] %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{%- endmacro %}
{% macro picture(png, alt) -%}
<img alt="{{ alt }}" src="{{ png|data }}">
{%- endmacro %}
"""
_RUN = """{% extends "base.html" %}
{% from "parts.html" import picture, settings %}
{% block content %}
{{ settings(numbers.items()) }}
{% for heading, figures in sections %}
<h2>{{ heading }}</h2>
<div class="grid">
{% for png, caption in figures %}<figure>{{ picture(png, caption) }}<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}</div>
{% endfor %}
<h2>Configuration</h2>
<pre>{{ config }}</pre>
{% endblock %}
"""
_environment = Environment(
    loader=DictLoader({"base.html": _BASE, "parts.html": _PARTS}),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["data"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode()


def write_html(path: Path, template: str, *, title: str, **values: object) -> Path:
    r"""Writes a page, whole or not at all.

    Args:
        path: of the HTML file.
        template: extends "base.html" by the blocks `content` and `style`; "parts.html" has the macros settings
            (name, value), numbers (a list of rows, the first of them a head) and picture (bytes of a PNG, text).
        title: of the page. values: of the template.
    """
    page = _environment.from_string(template)
    return write_text(path, page.render(title=title, style=_STYLE, **values))


def write_report(
    path: Path,
    title: str,
    sections: Sequence[tuple[str, Sequence[tuple[Path, str]]]],
    numbers: Mapping[str, object],
    config: str,
) -> Path:
    r"""Writes the page of a training, whole or not at all.

    Args:
        path: of the HTML file. title: heading.
        sections: (heading, [(PNG file, caption), ...]); files that do not exist are left out.
        numbers: shown as a table. config: text shown at the end.
    """
    found = [
        (heading, [(file.read_bytes(), caption) for file, caption in pictures if file.exists()])
        for heading, pictures in sections
    ]
    shown = [(heading, figures) for heading, figures in found if figures]
    return write_html(path, _RUN, title=title, sections=shown, numbers=numbers, config=config)
