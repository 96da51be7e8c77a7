r"""Sharding over processes for sampling, metrics and certification.

Work is a list of indices; process r of n takes indices r, r + n, r + 2n, ... Results are keyed by index, so they do
not depend on n. Processes are started by `torchrun` or `accelerate launch`; without them everything here is the
identity.
"""

import functools
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

import torch
import torch.distributed as dist

PATIENCE = timedelta(days=1)  # processes finish their shares hours apart
T = TypeVar("T")


def rank() -> int:
    r"""This process's number, 0 without a launcher."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    r"""The number of processes, 1 without a launcher."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


class _Patient:
    r"""The group whose processes wait for `PATIENCE`, beside that of a training in the same program; None: the default.

    Attributes:
        own: whether the default group is of `initialize`. group: the other one.
    """

    own: bool = False
    group: dist.ProcessGroup | None = None


def initialize() -> None:
    r"""Joins the process group that the launcher describes (NCCL or gloo, as the hardware has it); idempotent.

    Where a training has joined it, whose processes wait for minutes, `gather` gets a group of its own.
    """
    if world_size() == 1:
        return
    if not dist.is_initialized():
        dist.init_process_group(timeout=PATIENCE)
        _Patient.own = True
    elif not _Patient.own and _Patient.group is None:
        _Patient.group = dist.new_group(timeout=PATIENCE)


def finalize() -> None:
    r"""Leaves the process group, at the end of a command."""
    _Patient.own, _Patient.group = False, None
    if dist.is_initialized():
        dist.destroy_process_group()


def device() -> torch.device:
    r"""This process's accelerator, or the CPU where there is none."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"):  # of accelerate launch
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", 0))
    torch.accelerator.set_device_index(index)
    return torch.device(accelerator.type, index)


def moved(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    r"""A tensor on a device; from the CPU to an accelerator by way of pinned memory, so that nothing waits."""
    if x.device.type != "cpu" or device.type == "cpu":
        return x.to(device)
    accelerator = torch.accelerator.current_accelerator()
    pinned = accelerator is not None and accelerator.type == device.type
    return (x.pin_memory() if pinned else x).to(device, non_blocking=True)


def shard(indices: Iterable[int]) -> list[int]:
    r"""The indices that this process works on."""
    return list(indices)[rank() :: world_size()]


def barrier() -> None:
    r"""Waits for all processes.

    Raises:
        PeerFailed: a process gave a `Failure`.
    """
    gather(None)


def share(*tensors: Iterable[torch.Tensor]) -> None:
    r"""Gives all processes the first one's values of tensors, in place."""
    if dist.is_initialized() and world_size() > 1:
        for tensor in chain(*tensors):
            dist.broadcast(tensor, 0)


@functools.cache
def say_once(text: str) -> None:
    r"""Prints a line on standard error, on the first process, unless it was printed before."""
    if rank() == 0:
        print(text, file=sys.stderr)


@dataclass(frozen=True)
class Failure:
    r"""What a process gives in place of a value that it could not compute."""

    text: str


class PeerFailed(Exception):
    r"""Raised by `gather` on every process where one of them gave a `Failure`."""

    def __init__(self, rank: int, text: str) -> None:
        super().__init__(f"process {rank} failed ({text})")


def gather(value: T) -> list[T]:
    r"""The value of every process, in rank order, on every process.

    Raises:
        PeerFailed: a process gave a `Failure`.
    """
    if not dist.is_initialized():
        return [value]
    values: list[T] = [value] * world_size()
    dist.all_gather_object(values, value, _Patient.group)
    for number, found in enumerate(values):
        if isinstance(found, Failure):
            raise PeerFailed(number, found.text)
    return values


class _GatherRows(torch.autograd.Function):
    r"""Concatenates over processes; the gradient of a row is the sum over all processes that used it."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]


def gather_rows(x: torch.Tensor) -> torch.Tensor:
    r"""Tensors (B, ...) of all processes, in rank order, (world B, ...), with gradients to where the rows came from.

    The gradient is that of the sum of all processes' losses. B must be the same everywhere.
    """
    if not dist.is_initialized() or world_size() == 1:
        return x
    rows: torch.Tensor = _GatherRows.apply(x)  # type: ignore[no-untyped-call]  # torch gives `apply` no types
    return rows
