r"""What docs/benchmarks.md and the results of README say stands in the sections that they name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[([^]]*)\]\((?:docs/)?(\w+\.md)(?:#[^)]*)?\)")
ROWS = [
    (page.name, *LINK.search(row).groups(), LINK.sub("", row))
    for page, heading in ((ROOT / "docs" / "benchmarks.md", "## Sampling and"), (ROOT / "README.md", "## Results"))
    for row in re.findall(r"^\|.*\|$", page.read_text().partition(heading)[2].partition("## What it is not")[0], re.M)
    if LINK.search(row)
]


def numbers(text: str) -> list[str]:
    r"""Measured numbers, which have a point, a comma or an exponent; those of commands are none."""
    return re.findall(r"(?<![\w.,])\d*[.,]?\d+e-\d+|(?<![\w.,])\d*[.,]\d+(?![\w.])", re.sub(r"`[^`]*`", "", text))


@pytest.mark.parametrize(("page", "what", "section", "row"), ROWS, ids=lambda value: value[:60].strip())
def test_numbers_stand_in_the_section_of_their_row(page, what, section, row):
    known = numbers((ROOT / "docs" / section).read_text())
    missing = [number for number in numbers(row) if number not in known]
    assert not missing, f"{page}: '{what}' has {missing}, which docs/{section} has not"


def test_rows_are_found():
    assert len(ROWS) > 30
    assert numbers("4.98e-02, .97 and 1,834 of `--steps 1.5`, 1e-12") == ["4.98e-02", ".97", "1,834", "1e-12"]
