r"""One self-contained HTML page of a run: pictures as data, numbers as tables, no script and no network."""

import base64
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1f;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem}figure{margin:0}img{max-width:100%;image-rendering:pixelated}
figcaption{color:#55555f;font-size:.9rem}table{border-collapse:collapse}
td,th{padding:.2rem .8rem .2rem 0;text-align:left}
td{font-variant-numeric:tabular-nums}pre{background:#f4f4f6;padding:.8rem;overflow:auto;font-size:.8rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:1.5rem}
"""


def write_report(
    path: Path,
    title: str,
    sections: Sequence[tuple[str, Sequence[tuple[Path, str]]]],
    numbers: Mapping[str, object],
    config: str,
) -> Path:
    r"""Writes the page, atomically.

    Args:
        path: of the HTML file. title: heading.
        sections: (heading, [(picture, caption), ...]); pictures that do not exist are left out.
        numbers: shown as a table. config: text shown at the end.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", _table(numbers)]
    for heading, pictures in sections:
        figures = "".join(_figure(picture, caption) for picture, caption in pictures if picture.exists())
        if figures:
            parts.append(f"<h2>{html.escape(heading)}</h2><div class=pair>{figures}</div>")
    parts.append(f"<h2>Configuration</h2><pre>{html.escape(config)}</pre>")
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>{''.join(parts)}</html>"
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page)
    os.replace(partial, path)
    return path


def _table(numbers: Mapping[str, object]) -> str:
    rows = "".join(f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>" for k, v in numbers.items())
    return f"<table>{rows}</table>"


def _figure(picture: Path, caption: str) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    alt = html.escape(caption)
    return f"<figure><img alt='{alt}' src='data:image/png;base64,{data}'><figcaption>{alt}</figcaption></figure>"
