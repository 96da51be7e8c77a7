r"""Certificates as tables for other programs: one row an input."""

import csv
import io
from pathlib import Path

from scoregen.smoothing.results import Run
from scoregen.storage import write_text

FORMATS = {"csv": "certificates.csv", "cohen": "certificates.tsv"}
COLUMNS = ("index", "label", "predicted", "correct", "radius", "p_lower", "p_upper", "n", "draws")


def export(run: Run, folder: str | Path, form: str) -> Path:
    r"""Writes certificates into a folder.

    Args:
        run: of `load`.
        folder: where the file goes.
        form: "csv": certificates.csv with a head, every number as it was recorded. "cohen": certificates.tsv in the
            published tab-separated format: idx, label, predict, radius, correct, time, the time always 0.

    Returns:
        The file.
    """
    rows = _cohen(run) if form == "cohen" else _csv(run)
    text = io.StringIO()
    csv.writer(text, delimiter="\t" if form == "cohen" else ",", lineterminator="\n").writerows(rows)
    path = Path(folder) / FORMATS[form]
    write_text(path, text.getvalue())
    return path


def _csv(run: Run) -> list[list[object]]:
    head = [*COLUMNS, "norm", "alpha"]
    rows = []
    for record in run.records:
        found = record | {"correct": int(record["predicted"] == record["label"])}
        rows.append([*(found[name] for name in COLUMNS), run.header["norm"], run.header["alpha"]])
    return [head, *rows]


def _cohen(run: Run) -> list[list[object]]:
    head: list[object] = ["idx", "label", "predict", "radius", "correct", "time"]
    return [
        head,
        *(
            [r["index"], r["label"], r["predicted"], r["radius"], int(r["predicted"] == r["label"]), "0:00:00"]
            for r in run.records
        ),
    ]
