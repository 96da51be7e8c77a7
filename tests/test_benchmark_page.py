r"""What docs/benchmarks.md and the results of README say stands in the sections that they name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    (page.name, *found)
    for page in (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")
    for found in re.findall(
        r"^\| ([^|]*) \|(.*)\| \[[^]]*\]\((?:docs/)?(\w+\.md)(?:#[^)]*)?\) \|$", page.read_text(), re.M
    )
]


def numbers(text: str) -> list[str]:
    r"""Measured numbers, which have a point, a comma or an exponent; those of commands are none."""
    return re.findall(r"(?<![\w.,])\d*[.,]?\d+e-\d+|(?<![\w.,])\d*[.,]\d+(?![\w.])", re.sub(r"`[^`]*`", "", text))


@pytest.mark.parametrize(("page", "what", "cells", "section"), ROWS, ids=lambda value: value[:40].strip())
def test_numbers_stand_in_the_section_of_their_row(page, what, cells, section):
    result = cells.split("|")[-3 if page == "benchmarks.md" else 0]
    known = numbers((ROOT / "docs" / section).read_text())
    known += [number.removeprefix("0") for number in known]
    missing = [number for number in numbers(result) if number not in known]
    assert not missing, f"{page}: '{what}' has {missing}, which docs/{section} has not"


def test_rows_are_found():
    assert len(ROWS) > 30
    assert numbers("4.98e-02, .97 and 1,834 of `--steps 1.5`, 1e-12") == ["4.98e-02", ".97", "1,834", "1e-12"]
