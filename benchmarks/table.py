r"""Evaluations side by side: the rows of docs/results.md from metrics.json files.

python benchmarks/table.py outputs/evaluation/A outputs/evaluation/sweep/heun_035_calls ...
"""

import json
import sys
from pathlib import Path

NAMES = ("FD", "KD", "precision", "recall")


def row(folder: Path) -> str:
    r"""One line of the table."""
    numbers = json.loads((folder / "metrics.json").read_text())["metrics"]
    cells = []
    for name in NAMES:
        number = next(n for n in numbers if n["name"].split("-")[0] == name)
        cells.append(f"{number['value']:.4g} ({number['floor']:.3g})")
    protocol = numbers[0]["protocol"]
    calls = protocol["network_calls"] or ""
    return f"| {folder.parent.name}/{folder.name} | {calls} | {' | '.join(cells)} | {protocol['generated_images']} |"


def main() -> None:
    print(f"| evaluation | calls | {' | '.join(f'{name} (floor)' for name in NAMES)} | n |")
    print("|---" * (len(NAMES) + 3) + "|")
    for argument in sys.argv[1:]:
        print(row(Path(argument)))


if __name__ == "__main__":
    main()
