r"""Which samples of a data set are for training, for choosing and for tests: arithmetic of indices, without data.

| part | for | where it comes from |
|---|---|---|
| train | the weights | what the data have for training, or all of them, without what is held out |
| validation | choosing: early stopping, the best checkpoint | as `data.validation` says; by itself none is held out |
| test | numbers that are reported | as `data.test` says; a tenth of the data where they have no test part |

A choice made on the test part makes its numbers look better than they are, so nothing is chosen there. What is held out
depends on the number of samples alone: it is always the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from scoregen.checks import either
from scoregen.errors import UserError, closest

Name = Literal["train", "validation", "test"]
Held = str | int | float | None
AUTO, ALL, NONE = "auto", "all", "none"
NAMES: tuple[Name, ...] = ("train", "validation", "test")
FOLDERS: dict[Name, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
SHARE = 0.1  # held out of data without a test part


@dataclass(frozen=True)
class Piece:
    r"""Samples of what is stored as one part; `chosen` are their numbers there, None for all of them."""

    stored: Name
    chosen: Tensor | None = None


def is_path(value: Held) -> bool:
    r"""Whether a choice names other data: a text with a separator or a dot, or a name of what exists."""
    if not isinstance(value, str) or value in (AUTO, ALL, NONE):
        return False
    return any(sign in value for sign in "/\\.") or Path(value).exists()


def check_held(**choices: Held) -> None:
    r"""Refuses values of `data.test` and `data.validation` that are no choice.

    Raises:
        UserError: names the key and the choices.
    """
    for key, value in choices.items():
        words = (AUTO, ALL, NONE) if key == "test" else (AUTO, NONE)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or value in words or is_path(value):
            continue
        if number and (0 <= float(value or 0) < 1 or (isinstance(value, int) and value >= 1)):
            continue
        hint = f" {closest(value, words)}" if isinstance(value, str) else ""
        kinds = either([*words, "a share below 1", "a number of samples", "a path"])
        raise UserError(f"data.{key}: must be {kinds}, got {value!r}.{hint}")
    if choices.get("test") == ALL and choices.get("validation") not in (AUTO, NONE, None):
        raise UserError(
            f"data.validation: must be auto or none with data.test=all, which leaves no training part, got "
            f"{choices['validation']!r}. Leave it out."
        )


def part_of(count: int, train: bool, held_out: float = SHARE, seed: int = 0) -> Tensor:
    r"""The indices of one part of `count` samples that come without a split."""
    if count < 2:
        raise ValueError(f"there must be at least 2 samples, so that one can be held out, got {count}.")
    return _apart(count, max(1, round(held_out * count)), seed)[0 if train else 1]


def check_alike(shapes: Mapping[Name, tuple[int, ...]], name: str) -> None:
    r"""Refuses parts whose samples are of different shapes."""
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{part}: {shape}" for part, shape in shapes.items())
        raise UserError(f"data: the parts of {name} must hold samples of one shape, got {found}.")


def renumbered(
    label: Tensor | None, names: Sequence[str] | None, known: Sequence[str] | None, key: str
) -> Tensor | None:
    r"""Labels of other data by the numbers of the classes here, found by their names.

    Args:
        label: (N,) or None. names: of the classes that it counts. known: names of the classes here. key: for messages.

    Raises:
        UserError: a class that is not known here.
    """
    if label is None or names is None or known is None or tuple(names) == tuple(known):
        return label
    strange = next((name for name in names if name not in known), None)
    if strange is not None:
        raise UserError(f"data.{key}: class '{strange}' is none of the training data. {closest(strange, known)}")
    return torch.tensor([known.index(name) for name in names])[label]


def divide(sizes: Mapping[Name, int], test: Held, validation: Held, seed: int = 0) -> dict[Name, list[Piece]]:
    r"""The pieces of each part; a part without pieces is not there.

    Args:
        sizes: of what is stored as each part: "train" (all of the data, where they have no parts), and "test" and
            "validation" where the data have such a part, or a path names it.
        test, validation: the choices.
        seed: seed of the permutation.

    Raises:
        UserError: a choice that leaves no sample for training.
    """
    if test == ALL:
        return {"train": [], "validation": [], "test": [Piece(name) for name in NAMES if name in sizes]}
    left, parts = Piece("train"), dict[Name, list[Piece]]()
    choices: dict[Name, tuple[Held, float]] = {"test": (test, SHARE), "validation": (validation, 0.0)}
    for key, (choice, usual) in choices.items():
        amount = usual if choice == AUTO else 0.0 if choice in (NONE, None) else choice
        parts[key] = []
        if key in sizes and (choice == AUTO or is_path(choice)):
            parts[key] = [Piece(key)]
        elif isinstance(amount, int | float) and amount > 0:
            left, held = _held_out(left, sizes["train"], key, amount, seed)
            parts[key] = [held]
    return {"train": [left], **parts}


def _held_out(piece: Piece, size: int, key: Name, amount: float, seed: int) -> tuple[Piece, Piece]:
    r"""What is left of a piece, and what is held out of it."""
    count = size if piece.chosen is None else len(piece.chosen)
    taken = max(1, round(amount * count)) if amount < 1 else int(amount)
    if taken >= count:
        raise UserError(
            f"data.{key}: must leave samples for training, got {amount:g} of {count:,}. Give a smaller share, or "
            f"data.{key}=none."
        )
    left, held = _apart(count, taken, seed)
    return _of(piece, left), _of(piece, held)


def _of(piece: Piece, places: Tensor) -> Piece:
    return Piece(piece.stored, places if piece.chosen is None else piece.chosen[places])


def _apart(count: int, taken: int, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count - taken], order[count - taken :]
