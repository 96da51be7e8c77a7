r"""Damaged samples in a training: skipped, counted and named; too many of them end it.

Sample i of a part that cannot be read is replaced by the next one that can, by number: a function of the data alone, so
that a run that is resumed, or that has other processes, draws the same samples. What is counted is shared with the
processes that read.
"""

import sys
from contextlib import suppress

import torch
from torch import Tensor

from scoregen.data.identity import Entries
from scoregen.data.indexed import Dataset, Index, places_of
from scoregen.data.opening import Damaged
from scoregen.errors import UserError


class Tolerant(Dataset):
    r"""A data set whose damaged samples are replaced.

    Args:
        whole: the data set.
        share: of its samples that may be damaged.
    """

    def __init__(self, whole: Dataset, share: float) -> None:
        self.whole, self.label, self.range, self.share = whole, whole.label, whole.range, share
        self.decodes = whole.decodes
        self._damaged = torch.zeros(len(whole), dtype=torch.uint8)
        with suppress(RuntimeError):  # without shared memory each process counts for itself
            self._damaged.share_memory_()  # type: ignore[no-untyped-call]  # torch gives it no types

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole.shape

    @property
    def damaged(self) -> int:
        r"""How many samples were found to be damaged."""
        return int(self._damaged.sum())

    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor | None]:
        chosen = places_of(index, len(self))
        while True:
            try:
                return self.whole[self._replaced(chosen)]
            except Damaged:
                self._find(self._replaced(chosen))

    def _replaced(self, chosen: Tensor) -> Tensor:
        r"""The numbers of samples, those of damaged ones moved on to the next."""
        while bool((bad := self._damaged[chosen] > 0).any()):
            chosen = torch.where(bad, (chosen + 1) % len(self), chosen)
        return chosen

    def _find(self, chosen: Tensor) -> None:
        r"""Marks the damaged ones of some samples."""
        for place in sorted(set(chosen.reshape(-1).tolist())):
            try:
                _ = self.whole[place]
            except Damaged as error:
                self._mark(place, error)

    def _mark(self, place: int, error: Damaged) -> None:
        self._damaged[place] = 1
        if self.damaged > self.share * len(self) or self.damaged == len(self):
            raise UserError(
                f"{error} That makes {self.damaged} of {len(self):,} samples that cannot be read, above the share of "
                f"data.max_corrupt={self.share:g}. Repair or remove them, or raise it."
            ) from error
        print(f"{error} Sample {place} is skipped; the next one stands in for it.", file=sys.stderr, flush=True)

    def fingerprint(self) -> str:
        return self.whole.fingerprint()

    def entries(self) -> Entries:
        return self.whole.entries()
