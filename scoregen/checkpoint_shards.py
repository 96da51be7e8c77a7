r"""The tensors of a checkpoint in one safetensors file for each process, by `torch.distributed.checkpoint`.

A training whose model is cut over the processes writes such checkpoints on its way, since no process has the whole. A
name has a prefix: `model.`, `ema.` or `optimizer.`. Any number of processes reads them, also one without a launcher.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from scoregen.errors import UserError
from scoregen.failures import reason

PATTERN = "shard-*.safetensors"


def shard_files(folder: Path) -> list[str]:
    r"""Names of the shards of a checkpoint, sorted; none of an ordinary one."""
    return sorted(path.name for path in folder.glob(PATTERN))


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    r"""Writes the parts of tensors that this process holds; called on every process with the same names.

    Raises:
        UserError: on every process, where one of them could not.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with _translated(f"checkpoint: '{folder}' cannot be written", "Mend this, then resume with trainer.resume=auto."):
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def load_shards(folder: Path, targets: Mapping[str, Tensor]) -> None:
    r"""Reads tensors in place, of a sharded one this process's part; called on every process with the same names.

    Raises:
        UserError: a name or shape is not that of the checkpoint, or a file is damaged.
    """
    there = shard_shapes(folder)
    for name, target in targets.items():
        if there.get(name) != tuple(target.shape):
            raise UserError(
                f"checkpoint: '{folder}' does not fit: '{name}' has shape {there.get(name)} there and "
                f"{tuple(target.shape)} here. Use an earlier checkpoint, or start a new run with init=."
            )
    _load(folder, targets, alone=not dist.is_initialized())


def shard_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    r"""Names and whole shapes of the tensors; none is read."""
    return {name: shape for name, (shape, _) in _described(folder).items()}


def read_shards(folder: Path, name: str) -> dict[str, Tensor]:
    r"""The whole tensors of "model", "ema" or "optimizer", put together in this process alone.

    Averages are of what is trained; the rest of "ema" is that of "model".
    """
    wanted = ("model.", "ema.") if name == "ema" else (f"{name}.",)
    described = _described(folder)
    found = {
        key: torch.empty(shape, dtype=dtype)
        for prefix in wanted
        for key, (shape, dtype) in described.items()
        if key.startswith(prefix)
    }
    _load(folder, found, alone=True)
    return {key.split(".", 1)[1]: value for key, value in found.items()}


def _load(folder: Path, targets: Mapping[str, Tensor], alone: bool) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with _translated(f"checkpoint: '{folder}' is missing or damaged", "Use an earlier checkpoint."):
        load(dict(targets), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)


def _described(folder: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    with _translated(f"checkpoint: '{folder}' is missing or damaged", "Use an earlier checkpoint."):
        entries = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    tensors = {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
    return {name: (tuple(entry.size), entry.properties.dtype) for name, entry in tensors.items()}


@contextmanager
def _translated(what: str, remedy: str) -> Iterator[None]:
    r"""Turns the failure of any process into one message; torch raises a BaseException that holds those of all."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process reads too
            yield
    except CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        raise UserError(f"{what} ({_one_line(first)}). {remedy}") from first
    except (OSError, RuntimeError, ValueError, KeyError, AssertionError, MemoryError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{what} ({_one_line(error)}). {remedy}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise UserError(f"{what} ({_one_line(error)}). {remedy}") from error


def _one_line(error: BaseException) -> str:
    return reason(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
