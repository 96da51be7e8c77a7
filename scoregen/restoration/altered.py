r"""Restored values that were changed because no count, or no file, can be like that: counted, kept and told."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from scoregen.data.units import percent
from scoregen.storage import write_json


@dataclass(frozen=True)
class Altered:
    r"""Counts of restored values.

    Args:
        below: those with an estimate, or one of its draws, below 0, which was raised to 0.
        lowest: of these estimates and draws, in the numbers of the file; 0 where none is below.
        beyond: those beyond the ends of the type of their file, which were cut.
    """

    below: int = 0
    lowest: float = 0.0
    beyond: int = 0

    def __add__(self, other: "Altered") -> "Altered":
        return Altered(self.below + other.below, min(self.lowest, other.lowest), self.beyond + other.beyond)

    def lines(self, values: int) -> list[str]:
        r"""What is to be told, of so many values."""
        told = []
        if self.below:
            told.append(
                f"below 0: {_of(self.below, values)} had an estimate or a draw below 0, down to {self.lowest:.2g}, "
                "which was raised to 0. Where that is more than rounding, dark means are too bright: the model and "
                "gibbs.rho_min blur draws beyond what can be. Lower gibbs.rho_min, with more gibbs.rounds"
            )
        if self.beyond:
            told.append(
                f"cut: {_of(self.beyond, values)} were beyond what the type of their file can hold, and were cut to "
                "its ends. Use float files"
            )
        return told


def _of(part: int, values: int) -> str:
    return f"{part} of {values} restored values ({percent(part / values)})"


def keep(place: Path, found: Altered) -> None:
    r"""Keeps the counts of a band in a file, or none where nothing was changed."""
    if found.below or found.beyond:
        write_json(place, asdict(found))
    else:
        place.unlink(missing_ok=True)


def kept(place: Path) -> Altered:
    r"""The counts of a band."""
    return Altered(**json.loads(place.read_text())) if place.exists() else Altered()
