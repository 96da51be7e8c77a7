r"""Batches as a function of the step: resuming needs only the step, and every process takes its own part."""

from collections.abc import Iterator

import numpy as np
import torch

from scoregen.rng import Stream, generator


class Batches:
    r"""The indices of the samples of each micro-batch of one process, epoch after epoch in a new order.

    Position p of the endless stream is entry p mod N of the permutation of epoch p // N; step k holds the positions
    k B to (k + 1) B - 1. Micro-batch m of process r takes the contiguous block number m * processes + r of them.

    Args:
        size: number of samples N.
        batch: global batch size B.
        accumulate: micro-batches a step.
        rank, world: this process and their number.
        seed: seed of the orders.
        start, stop: steps.
    """

    def __init__(
        self, size: int, batch: int, accumulate: int, rank: int, world: int, seed: int, start: int, stop: int
    ) -> None:
        if batch % (accumulate * world):
            raise ValueError(
                f"batch_size must be divisible by accumulate x processes, got batch_size={batch}, "
                f"accumulate={accumulate}, processes={world}."
            )
        self.size, self.batch, self.accumulate = size, batch, accumulate
        self.rank, self.world, self.seed, self.start, self.stop = rank, world, seed, start, stop
        self._orders: dict[int, np.ndarray] = {}  # 8 bytes a sample

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            for micro in range(self.accumulate):
                places = self.positions(micro)
                yield self._samples(step * self.batch + places.start, len(places))

    def positions(self, micro: int) -> range:
        r"""The places, 0 to B - 1, of this process's micro-batch in the global batch."""
        size = self.batch // (self.accumulate * self.world)
        block = micro * self.world + self.rank
        return range(block * size, (block + 1) * size)

    def _samples(self, first: int, count: int) -> list[int]:
        r"""The samples at `count` positions from the first on."""
        found: list[int] = []
        while len(found) < count:
            epoch, place = divmod(first + len(found), self.size)
            found += self._order(epoch)[place : place + count - len(found)].tolist()
        return found

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            draws = generator(self.seed, Stream.ORDER, epoch)
            self._orders[epoch] = torch.randperm(self.size, generator=draws).numpy()
        return self._orders[epoch]
