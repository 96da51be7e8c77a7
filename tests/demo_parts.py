r"""Commands that the page of the demo shows: a path in one, and one that is run."""

import shlex
from pathlib import Path

from tiny import command


def repeated(line: str, out: Path) -> Path:
    r"""The folder of a command that the page shows."""
    _, name, *overrides = shlex.split(line)
    assert command(name, *overrides, f"out={out}") == 0
    return out


def quoted(path: Path) -> str:
    return str(path).replace("'", "\\'")
