r"""Numbers with their protocol: a table to read, JSON to keep.

The JSON repeats the protocol beside every number, so that a number that is copied out stays comparable.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scoregen.storage import write_json


@dataclass(frozen=True)
class Number:
    r"""One measured number.

    Args:
        name: "FD-mnist", "precision", ...
        value: the number.
        better: "lower", "higher" or "none" (a description, not a score).
        floor: the same number for real held-out images in place of generated ones: what a perfect model would get.
        low, high: interval, or None.
        note: what the interval is, and settings such as k.
    """

    name: str
    value: float
    better: str
    floor: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass
class Report:
    r"""The result of an evaluation.

    Args:
        numbers: in the order of the table.
        protocol: extractor, hashes, counts, resize, seed, sampler, calls, round trip.
        details: class shares, the most suspicious neighbours.
        warnings: reasons why the numbers cannot be compared with others.
    """

    numbers: list[Number]
    protocol: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Number:
        for number in self.numbers:
            if number.name == name:
                return number
        raise KeyError(f"{name}: the report holds {', '.join(n.name for n in self.numbers)}.")

    def rows(self) -> list[tuple[str, ...]]:
        r"""The numbers as the rows of a table, a head first."""
        found = [
            (n.name, _short(n.value), _interval(n), "" if n.floor is None else _short(n.floor), n.better, n.note)
            for n in self.numbers
        ]
        return [("metric", "value", "interval", "floor", "better", "note"), *found]

    def table(self) -> str:
        r"""The numbers as a Markdown table, the protocol and warnings below it."""
        rows = self.rows()
        width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)) + " |" for row in rows]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in width) + "|")
        lines += ["", *(f"{key}: {value}" for key, value in self.protocol.items())]
        lines += ["", *(f"warning: {text}" for text in self.warnings)] if self.warnings else []
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        r"""Plain data, the protocol repeated beside every number."""
        return {
            "metrics": [{**asdict(number), "protocol": self.protocol} for number in self.numbers],
            "details": self.details,
            "warnings": self.warnings,
        }

    def write(self, file: Path) -> Path:
        r"""Writes the JSON, whole or not at all."""
        return write_json(file, self.as_dict())


def _short(value: float) -> str:
    return f"{value:.4g}"


def _interval(number: Number) -> str:
    if number.low is None or number.high is None:
        return ""
    return f"{_short(number.low)} .. {_short(number.high)}"
