r"""Chunks of a run that are kept, so that some of their draws can be asked about again when it has ended.

Each chunk has a number that its key determines; those with the smallest numbers are kept. They are evenly spread over
the run, however long it is and in whatever order its chunks come. The last chunk of each count is in its last batch,
which may be smaller than the others: of these some are kept as well.
"""

import heapq
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoregen.keys import derive_seed
from scoregen.rng import Stream
from scoregen.smoothing.engine import Request

KEPT, LAST = 32, 4  # chunks of the whole run, and further ones that ended a count


@dataclass(frozen=True)
class Spot:
    r"""A chunk that was counted: its first draw, the seed of its noise, and its answers (draws,)."""

    request: Request
    first: int
    seed: int
    answers: Tensor

    @property
    def number(self) -> int:
        r"""64 bits that look random, of the chunk alone."""
        request = self.request
        return derive_seed(self.seed, Stream.PROBE, request.stream, request.index, self.first)

    def places(self, most: int) -> list[int]:
        r"""At most so many of its draws, evenly spread, the last one among them."""
        size = len(self.answers)
        return list(range(size - 1, -1, -max(1, -(-size // most)))) if most else []


class Spots:
    r"""The chunks that are kept."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, int, Spot]] = []
        self._last: list[tuple[int, int, Spot]] = []
        self._offered = 0

    def offer(self, spot: Spot, number: int, last: bool) -> None:
        r"""Keeps a chunk, if its number is among the smallest; `last`: of those that ended a count, too."""
        self._offered += 1
        entry = (-number, self._offered, spot)
        _push(self._kept, entry, KEPT)
        if last:
            _push(self._last, entry, LAST)

    def take(self) -> list[Spot]:
        r"""The chunks that are kept, which are then forgotten."""
        found = list({place: spot for _, place, spot in (*self._kept, *self._last)}.values())
        self._kept, self._last = [], []
        return found


def _push(heap: list[tuple[int, int, Spot]], entry: tuple[int, int, Spot], most: int) -> None:
    if len(heap) == most and entry[0] <= heap[0][0]:
        return
    number, place, spot = entry
    own = replace(spot, answers=spot.answers.clone())  # no larger tensor stays alive
    heapq.heappush(heap, (number, place, own))
    if len(heap) > most:
        heapq.heappop(heap)


def rows(spots: list[Spot], most: int) -> tuple[list[tuple[Spot, list[int]]], Tensor]:
    r"""At most so many draws of the chunks: their places in each chunk, and their answers."""
    each, more = divmod(most, max(1, len(spots)))
    chosen = [(spot, spot.places(each + (number < more))) for number, spot in enumerate(spots)]
    answers = [spot.answers[places] for spot, places in chosen]
    return chosen, torch.cat(answers) if answers else torch.zeros(0, dtype=torch.int64)
