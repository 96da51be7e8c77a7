r"""Pictures that are read when they are used, wherever they are kept, and the labels that come with them."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from torch import Tensor

from scoregen import checks
from scoregen.data.alike import Alike, Wanted
from scoregen.data.base import LazyDataset
from scoregen.data.bounds import check_labels, check_size
from scoregen.data.opening import Damaged, Stored
from scoregen.data.units import UNIT, as_range, tell_flat
from scoregen.errors import UserError
from scoregen.parallel import say_once
from scoregen.storage import short

_MOST_READ = 512  # pictures, for a fingerprint
_HEADERS, _READ = 500, 4  # pictures of which the header, or all, is read at the start


class Pictures(LazyDataset):
    r"""Pictures (C, H, W), bytes or floats, each read when it is used; a subclass says where they are kept.

    Args:
        label: (N,) integers, or None. wanted: how they are read.
    """

    decodes = True

    def __init__(self, label: Tensor | None, wanted: Wanted) -> None:
        self.label, self.wanted, self.range = label, wanted, wanted.range

    @abstractmethod
    def picture(self, place: int) -> Path | Stored:
        r"""A picture file by its number, 0 to N - 1, or its bytes."""

    @cached_property
    def alike(self) -> Alike:
        r"""Reads pictures that are like the first one."""
        return Alike(self.picture(0), self.wanted)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.alike.shape

    def look(self, share: float, name: str) -> Alike:
        r"""Reads the headers of some pictures, evenly spread, and a few pictures whole, before anything is trained.

            What is odd about their values is told on standard error.

        Args:
            share: of the pictures that may be damaged. name: of all of them, for messages.

        Returns:
            The reader of pictures like the first whole one, which reads them from here on.

        Raises:
            UserError: pictures that differ, or are damaged.
        """
        found, damaged, sizes = None, 0, list[tuple[int, int]]()
        for place in spread(len(self), _HEADERS):
            try:
                found = found or Alike.to(self.picture(place), self.wanted)
                sizes += [full] if (full := found.check(self.picture(place)).full) else []
            except Damaged as error:
                damaged += 1
                if damaged > share * len(self):
                    raise Damaged(
                        f"{error} That makes {damaged} of {len(self):,} pictures that cannot be read, above the share "
                        f"of data.max_corrupt={share:g}. Repair or remove them, or raise it."
                    ) from error
        assert found is not None  # one was whole, or there are too many damaged ones
        self.alike = found
        tell_resized(sizes, found.kind.height, name)
        with suppress(Damaged):  # a training counts them
            places, scale = spread(len(self), _READ), {8: 255, 16: 65535}.get(found.kind.bits)
            some = f" ({len(places)} of {len(self):,} looked at)" if len(places) < len(self) else ""
            tell_flat(self.in_units(places)[0], self.range, name + some, scale)
        return found

    def read(self, places: list[int]) -> Tensor:
        return self.alike.read(self.picture(place) for place in places)

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        r"""Of the labels, and of the bytes of at most 512 pictures, evenly spread."""
        content = sha256(str((len(self), self.shape, self.range)).encode())
        content.update(b"" if self.label is None else self.label.numpy().tobytes())
        count = min(len(self), _MOST_READ)
        for k in range(count):
            file = self.picture(k * len(self) // count)
            content.update(file.content if isinstance(file, Stored) else file.read_bytes())
        return content.hexdigest()[:16]


def tell_resized(sizes: Sequence[tuple[int, int]], side: int, name: str) -> None:
    r"""Says what pictures lose, or are given, where they are resized to side x side.

    Args:
        sizes: height and width in the files. side: in pixels. name: of the pictures, for the message.
    """
    cut = [1 - min(size) / max(size) for size in sizes if size[0] != size[1]]
    small = sum(min(size) < side for size in sizes)
    if cut:
        say_once(
            f"data.size: of {name}, {len(cut):,} of {len(sizes):,} that were looked at are not square. What lies "
            f"outside the middle is cut, up to {100 * max(cut):.0f} % of a picture."
        )
    if small:
        least = min(min(size) for size in sizes)
        say_once(
            f"data.size: of {name}, {small:,} of {len(sizes):,} that were looked at are smaller than {side} pixels, "
            f"down to {least}, and are enlarged."
        )


def spread(count: int, most: int) -> list[int]:
    r"""At most so many of the numbers 0 to count - 1, evenly spread."""
    taken = min(count, most)
    return [k * count // taken for k in range(taken)]


def wanted_of(
    size: int | None, channels: int | None, range: Sequence[float] | None, max_pixels: int, max_corrupt: float
) -> Wanted:
    r"""How the pictures of a source are read, from its keys.

    Raises:
        ValueError: one is out of range.
    """
    check_size(size, max_pixels)
    checks.inside(0, 1, max_corrupt=max_corrupt)
    if channels not in (1, 3, None):
        raise UserError(f"data.channels: must be 1 or 3, got {channels}.")
    return Wanted(None if size is None else int(size), channels, max_pixels, as_range(range) or UNIT)


def check_texts(label: str | None, caption: str | None) -> None:
    r"""Refuses a class and a text at once."""
    if label is not None and caption is not None:
        raise UserError(f"data.caption: a sample has a class or a text, got label={label} and caption={caption}.")


def as_classes(values: Sequence[object], where: str) -> tuple[tuple[str, ...], np.ndarray | None]:
    r"""Names of classes and numbers (N,), from a value a sample: all whole numbers, all texts, or all None.

        Numbers have no names. Other texts than whole numbers are names, numbered in the order of the alphabet.

    Args:
        values: of the samples. where: the key that named them.

    Raises:
        UserError: they are of several kinds, or of others.
    """
    kinds = {type(value) for value in values}
    if kinds == {type(None)}:
        return (), None
    if kinds == {str} and all(_is_whole(str(value)) for value in values):
        values, kinds = [int(str(value)) for value in values], {int}
    if kinds == {int}:
        numbers = np.array(values)
        check_labels(where, numbers, len(values))
        return (), numbers if (numbers >= 0).any() else None
    if empty := sum(value == "" for value in values):
        raise UserError(f"{where}: {empty:,} of {len(values):,} samples have an empty name of a class. Give theirs.")
    if kinds == {str}:
        names, numbers = as_captions(values, where)
        order = np.argsort(names)
        return tuple(names[k] for k in order), np.argsort(order)[numbers]
    first = next(value for value in values if type(value) is not type(values[0]) or type(value) not in (int, str))
    raise UserError(
        f"{where}: must give a whole number for each sample, or a name for each, got {short(values[0])} and "
        f"{short(first)}."
    )


def as_captions(values: Sequence[object], where: str) -> tuple[tuple[str, ...], np.ndarray]:
    r"""The texts of the samples, each once, in their order; and the number of its text for each sample, (N,).

    Raises:
        UserError: one of them is no text.
    """
    wrong = next((value for value in values if not isinstance(value, str)), None)
    if wrong is not None or None in values:
        raise UserError(f"{where}: must give a text for each sample, got {short(wrong)}.")
    texts = [str(value) for value in values]
    numbers = {text: k for k, text in enumerate(dict.fromkeys(texts))}
    return tuple(numbers), np.array([numbers[text] for text in texts], dtype=np.int64)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 12
