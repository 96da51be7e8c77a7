r"""Every sample of a source is read once, so that a damaged one is found before a run and not in its third hour."""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import cast

import torch.utils.data
from torch.utils.data import DataLoader

from scoregen.data.base import Source
from scoregen.data.damage import Tolerant
from scoregen.data.indexed import ArrayDataset, Dataset, Joined, Subset
from scoregen.data.parts import NAMES, Name
from scoregen.errors import UserError
from scoregen.progress import progress

_AT_ONCE, _SHOWN = 32, 10  # samples that are read together; those that are named on standard error


def read_all(source: Source, names: Sequence[Name] = NAMES) -> str:
    r"""Reads every sample of some parts, in processes of its own where there are many.

        Data in memory were read when they were loaded.

    Args:
        source: whose parts. names: names of the parts.

    Returns:
        What was read, in a line.

    Raises:
        UserError: more samples than `max_corrupt` of a part cannot be used; each of the first ten is named on standard
            error.
    """
    read, bad = 0, list[str]()
    for name in names:
        part = source.part(name)
        part = part.whole if isinstance(part, Tolerant) else part  # each damaged one is wanted here
        if part is None or _in_memory(part):
            continue
        found = list(_mistakes(part, f"reading the {name} part"))
        read, bad = read + len(part), bad + found
        share = source.max_corrupt if name != "test" else 0.0  # no number is reported on what is left
        if len(found) > share * len(part):
            print(*found[:_SHOWN], sep="\n", file=sys.stderr)
            raise UserError(
                f"data: {len(found):,} of the {len(part):,} samples of the {name} part cannot be read. The first: "
                f"{found[0]}"
            )
    if not read:
        return "data: all of it is in memory"
    print(*bad[:_SHOWN], sep="\n", end="\n" if bad else "", file=sys.stderr)
    skipped = f"; {len(bad):,} are damaged and will be skipped (data.max_corrupt={source.max_corrupt:g})" if bad else ""
    return f"data: all {read:,} samples were read and decoded{skipped}"


def _in_memory(part: Dataset) -> bool:
    if isinstance(part, Subset):
        return _in_memory(part.whole)
    return all(map(_in_memory, part.pieces)) if isinstance(part, Joined) else isinstance(part, ArrayDataset)


class _Chunks(torch.utils.data.Dataset[list[str]]):
    r"""Chunks of a part: what is wrong with the samples of each."""

    def __init__(self, part: Dataset) -> None:
        self.part = part

    def __len__(self) -> int:
        return -(-len(self.part) // _AT_ONCE)

    def __getitem__(self, chunk: int) -> list[str]:
        places = range(chunk * _AT_ONCE, min(len(self.part), (chunk + 1) * _AT_ONCE))
        try:
            _ = self.part[list(places)]
        except UserError:
            return [text for place in places if (text := self._mistake(place)) is not None]
        return []

    def _mistake(self, place: int) -> str | None:
        try:
            _ = self.part[place]
        except UserError as error:
            return str(error)
        return None


def _mistakes(part: Dataset, description: str) -> Iterator[str]:
    chunks = _Chunks(part)
    workers = min(os.cpu_count() or 1, 8) if len(chunks) > 32 else 0
    loader = DataLoader(chunks, batch_size=None, num_workers=workers)
    for found in progress(cast(Sequence[list[str]], loader), description=description, unit=f"x{_AT_ONCE}"):
        yield from found
