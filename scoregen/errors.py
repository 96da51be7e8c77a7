r"""Errors that name the value, the rule and the closest right name."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class UserError(ValueError):
    r"""A mistake in what the user asked for: shown as one message without a traceback by the command line."""

    def __str__(self) -> str:
        return printable(super().__str__())


class Interrupted(Exception):
    r"""The work was ended before it was done, and can be resumed.

    Args:
        status: exit status of the program: 128 + n for signal n, 75 ("not finished") for a limit of time.
        message: one line that says where to go on.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        return type(self), (self.status, str(self))  # it may come from a process of a launcher


def printable(text: str) -> str:
    r"""A text for a terminal: control characters, as names of files may hold, as their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def closest(name: str, choices: Iterable[str]) -> str:
    r"""The sentence "Did you mean 'x'?" or the list of choices, whichever helps."""
    choices = sorted(str(choice) for choice in choices)
    match = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    if match:
        return f"Did you mean '{match[0]}'?"
    return f"Choices: {', '.join(choices)}." if choices else ""


def listed(names: Sequence[str], most: int = 5) -> str:
    r"""The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def absent(path: Path | str) -> str:
    r"""The sentence that a path does not exist, with the nearest name beside it."""
    path = Path(path)
    if path.is_symlink():
        return f"'{path}' is a link to what does not exist."
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    match = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"'{path}' does not exist." + (f" Did you mean '{path.with_name(match[0])}'?" if match else "")
