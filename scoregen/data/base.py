r"""The contract of a source: what the data are, and their parts: index -> x (B, *S) as stored, label (B,) or None."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from scoregen.data import identity
from scoregen.data.augment import Augmentation
from scoregen.data.damage import Tolerant
from scoregen.data.indexed import UNIT, ArrayDataset, Dataset, Index, Joined, LazyDataset, Range, Subset
from scoregen.data.labels import check_labels_of, tell_unlabelled
from scoregen.data.opening import Damaged
from scoregen.data.parts import (
    ALL,
    AUTO,
    FOLDERS,
    NONE,
    Held,
    Name,
    Piece,
    check_alike,
    check_held,
    divide,
    is_path,
    part_of,
    renumbered,
)
from scoregen.data.units import check_units
from scoregen.errors import UserError

__all__ = [
    "UNIT",
    "ArrayDataset",
    "Dataset",
    "Held",
    "Index",
    "LazyDataset",
    "Range",
    "Source",
    "Subset",
    "part_of",
    "split",
]


class Source(ABC):
    r"""A named data set with a training part, a test part, and a validation part where one is asked for.

        A source states what its data are, never which model or chart suits them.

    Args:
        augmentation: applied to training batches, or None.
        test: where the test part comes from: "auto" (that of the data, or else a tenth is held out), "all" (all data
            are the test part, none are left for training), "none", a share or a number of samples, or a path.
        validation: likewise for the part that checkpoints are chosen by: "auto" (that of the data, or else none),
            "none", a share or a number of the training samples, or a path.

    Attributes:
        name: of the data, for records and messages.
        range: the lowest and the highest value that the units of the data allow: (0.0, 1.0) for images unless stated
            otherwise, (0.0, inf) for strictly positive measurements; None for unbounded vectors.
        num_classes: number of classes, None where labels are missing or are no classes (captions).
        class_names: names of the classes, or None where they are numbers.
        max_corrupt: share of the samples that a training skips where they are damaged; 0 for data in memory.

    Raises:
        UserError: a test or validation that is no choice.
    """

    name: str
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    max_corrupt: float = 0.0
    argument_attributes: ClassVar[dict[str, str]] = {"test": "test_from", "validation": "validation_from"}

    def __init__(self, augmentation: Augmentation | None = None, test: Held = AUTO, validation: Held = AUTO) -> None:
        test, validation = (str(choice) if isinstance(choice, Path) else choice for choice in (test, validation))
        check_held(test=test, validation=validation)
        self.augmentation, self.test_from, self.validation_from = augmentation, test, validation

    @property
    @abstractmethod
    def range(self) -> Range | None:
        r"""The lowest and the highest value that the units of the data allow; state it as a class attribute."""

    @abstractmethod
    def load(self, train: bool) -> Dataset | None:
        r"""Reads what the data have for training (all of them, where they have no parts), or their own test part.

        Called once for each. Return None for a test part that the data do not have: a tenth is held out by itself.
        """

    def load_validation(self) -> Dataset | None:
        r"""Reads the data's own validation part; None where they have none."""
        return None

    @property
    def seed_of_parts(self) -> int:
        r"""Seed of the permutation whose end is held out."""
        return 0

    @cached_property
    def train(self) -> Dataset:
        r"""The training part."""
        return self._required("train", f"data.test={self.test_from} leaves none. Leave it out.")

    @cached_property
    def test(self) -> Dataset:
        r"""The part for numbers that are reported."""
        return self._required("test", f"data.test={self.test_from}. Give data.test=auto, or a path.")

    @cached_property
    def validation(self) -> Dataset:
        r"""The part that checkpoints are chosen by."""
        return self._required("validation", "Give data.validation=0.1, which holds out a tenth of the training part.")

    def part(self, name: Name) -> Dataset | None:
        r"""A part, or None where there is none."""
        return self._parts.get(name)

    def _required(self, name: Name, why: str) -> Dataset:
        found = self.part(name)
        if found is None:
            raise UserError(f"data: {self.name} has no {name} part: {why}")
        return found

    @cached_property
    def _stored(self) -> dict[Name, Dataset]:
        r"""What the data have for each part, before anything is held out; a path names other data for a part."""
        train = self.load(train=True)
        if train is None:
            raise UserError(f"data: load(train=True) of {self.name} must return its data, got None.")
        found: dict[Name, Dataset | None] = {"train": train, "test": None, "validation": None}
        if is_path(self.test_from):
            found["test"] = self._elsewhere("test", str(self.test_from))
        elif self.test_from in (AUTO, ALL):
            found["test"] = self.load(train=False)
        if is_path(self.validation_from):
            found["validation"] = self._elsewhere("validation", str(self.validation_from))
        elif self.validation_from == AUTO or self.test_from == ALL:
            found["validation"] = self.load_validation()
        parts = {name: part for name, part in found.items() if part is not None}
        check_alike({name: part.shape for name, part in parts.items()}, self.name)
        for name, part in parts.items():
            self._check_values(name, part)
        tell_unlabelled(parts, self.name, self.test_from == ALL)
        return parts

    def _check_values(self, name: Name, part: Dataset) -> None:
        r"""Refuses floats outside the range, of a part whose class does not do so: all in memory, else a few."""
        own = not type(part).__module__.startswith("scoregen.")
        if self.range is None or not len(part) or not (own or isinstance(part, ArrayDataset)):
            return
        with suppress(Damaged):  # a training counts them
            x = part.stored if isinstance(part, ArrayDataset) else part[[0, len(part) // 2, len(part) - 1]][0]
            if x.is_floating_point():
                check_units(x, self.range, f"the {name} part of {self.name}")

    @cached_property
    def _parts(self) -> dict[Name, Dataset]:
        sizes = {name: len(part) for name, part in self._stored.items()}
        divided = divide(sizes, self.test_from, self.validation_from, self.seed_of_parts)
        parts = {name: _assembled(self._stored, pieces) for name, pieces in divided.items() if pieces}
        if getattr(self, "captions", None) is None:  # whose labels number texts
            check_labels_of(parts, self.name, self.num_classes, self.class_names)
        if self.max_corrupt:  # numbers are reported on the test part, so nothing stands in for its samples
            parts |= {name: Tolerant(part, self.max_corrupt) for name, part in parts.items() if name != "test"}
        return parts

    def told(self, name: Name, count: int | None = None) -> str:
        r"""A part in words, with the number of its samples that are used: "4 of 4 test images, held out of 40"."""
        part, kind = self.part(name), "images" if len(self.shape) == 3 else "samples"
        word = "training" if name == "train" else name
        if part is None:
            return f"no {word} {kind}"
        number = f"{len(part):,}" if count is None else f"{min(count, len(part)):,} of {len(part):,}"
        choice = self.test_from if name == "test" else self.validation_from
        if name == "train":
            return f"{number} {word} {kind}"
        if self.test_from == ALL:
            return f"{number} {kind}, all that the data have (data.test=all)"
        if is_path(choice):
            return f"{number} {word} {kind} of '{choice}'"
        return f"{number} {word} {kind}" + (
            "" if name in self._stored else f", held out of {len(self._stored['train']):,}"
        )

    def entries(self) -> identity.Entries:
        r"""What tells these data from others, wherever they lie: an entry for each file, or one for each part."""
        for name, part in self._stored.items():
            prefix = f"{name}/" if len(self._stored) > 1 else ""
            yield from ((prefix + key, entry) for key, entry in part.entries())
            if part.label is not None:
                yield f"{prefix}labels{identity.NO_FILE}", sha256(part.label.numpy().tobytes()).hexdigest()[:16]
        if (captions := getattr(self, "captions", None)) is not None:
            yield f"captions{identity.NO_FILE}", sha256(json.dumps(captions).encode()).hexdigest()[:16]

    @cached_property
    def _told_by(self) -> str:
        return identity.fingerprint(self.entries())

    def identity(self) -> dict[str, Any]:
        r"""What the data are, for a record: fingerprint, numbers of samples, range, and names of classes."""
        return {
            "fingerprint": self._told_by,
            "samples": {name: len(part) for name, part in self._parts.items()},
            "range": None if self.range is None else list(self.range),
            "classes": None if self.class_names is None else list(self.class_names),
        }

    def _elsewhere(self, key: Name, path: str) -> Dataset:
        r"""All of the data at another path, read as these are."""
        names = signature(type(self)).parameters
        given = {name: getattr(self, self.argument_attributes.get(name, name)) for name in names}
        if hasattr(self, "captions"):
            raise UserError(f"data.{key}: must be no path for data with captions, which are numbered by data.path.")
        if "path" not in given:
            raise UserError(f"data.{key}: {self.name} has no data.path, so '{path}' cannot be read in its place.")
        self._check_apart(key, Path(path))
        try:
            other = type(self)(**{**given, "path": path, "test": ALL, "validation": NONE})
            found = Joined([other.test])
        except UserError as error:
            raise UserError(str(error).replace("data.path", f"data.{key}")) from error
        found.label = renumbered(found.label, other.class_names, self.class_names, key)
        return found

    def _check_apart(self, key: Name, path: Path) -> None:
        r"""Refuses a path whose samples are training samples too."""
        here, there = getattr(self, "path", None), path.resolve()
        known = here is not None and there.is_relative_to(Path(here).resolve())
        inside = there.relative_to(Path(str(here)).resolve()).parts if known else None
        if inside is None or (inside and self._is_other_part(inside[0])):
            return
        where = "in data.path" if inside else "data.path itself"
        raise UserError(
            f"data.{key}: '{path}' is {where}, so that its samples are for training too. Move it elsewhere, or give a "
            f"share of the data: data.{key}=0.1."
        )

    def _is_other_part(self, name: str) -> bool:
        r"""Whether a folder or file of this name in data.path is of another part than the training."""
        return name.lower() in (*FOLDERS["validation"], *FOLDERS["test"])

    @property
    def shape(self) -> tuple[int, ...]:
        r"""Shape of one sample, (*S)."""
        return next(iter(self._stored.values())).shape


def _assembled(stored: Mapping[Name, Dataset], pieces: Sequence[Piece]) -> Dataset:
    found = [(stored[piece.stored], piece.chosen) for piece in pieces]
    parts = [whole if chosen is None else Subset(whole, chosen) for whole, chosen in found]
    return parts[0] if len(parts) == 1 else Joined(parts)


def split(x: Tensor, label: Tensor | None, train: bool, held_out: float = 0.1, seed: int = 0) -> ArrayDataset:
    r"""One part of data that come without a split: a fixed permutation, the last fraction held out."""
    part = part_of(len(x), train, held_out, seed)
    return ArrayDataset(x[part], None if label is None else label[part])
