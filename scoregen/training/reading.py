r"""Batches of a training part, read ahead by processes of their own where reading takes time.

Which samples a batch has is a function of the step alone (`Batches`), so the number of these processes changes nothing.
"""

import os
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from scoregen.data import Batches, Dataset
from scoregen.errors import UserError
from scoregen.parallel import world_size

Batch = tuple[Tensor, Tensor | None]
_MOST = 8  # processes that are chosen


class _Told(TorchDataset[Any]):
    r"""A part that hands over its mistakes: raised in another process, a message would hold its traceback."""

    def __init__(self, part: Dataset) -> None:
        self.part = part

    def __getitems__(self, indices: list[int]) -> Batch | UserError:
        try:
            return self.part.__getitems__(indices)
        except UserError as error:
            return error


def batches(part: Dataset, order: Batches, workers: int | None, device: torch.device) -> Iterator[Batch]:
    r"""The batches of a part in an order, in pinned memory where an accelerator takes them.

    Args:
        workers: processes that read; None: `chosen_workers`.

    Raises:
        UserError: a sample cannot be read.
    """
    count = chosen_workers(part) if workers is None else workers
    ahead: dict[str, Any] = {"pin_memory": device.type != "cpu", "prefetch_factor": 4} if count else {}
    for batch in DataLoader(_Told(part), batch_sampler=order, collate_fn=_as_is, num_workers=count, **ahead):
        if isinstance(batch, UserError):
            raise batch
        yield cast(Batch, batch)


def chosen_workers(part: Dataset) -> int:
    r"""Processes that read a part: none where reading is a copy; else one a core less one, up to 8."""
    if not part.decodes:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    return max(0, min(_MOST, cores // beside - 1))


def _as_is(batch: Any) -> Any:
    return batch
