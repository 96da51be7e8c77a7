r"""Checkpoints of a training that is cut over the processes: shards on its way, one whole checkpoint at its end."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoregen import checkpoint
from scoregen.checkpoint import Contents
from scoregen.checkpoint_shards import load_shards, shard_files, shard_shapes, write_shards
from scoregen.errors import UserError
from scoregen.failures import translated
from scoregen.losses import Loss
from scoregen.optimizer_state import unpack
from scoregen.parallel import gather, rank
from scoregen.training.ema import EMA
from scoregen.training.sharding import full, like

_REMEDY = "Mend this, then resume the run with trainer.resume=auto."


def save_shards(folder: Path, contents: Contents, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    r"""Writes a checkpoint of which each process writes its part; called on every process.

    The folder must be the same for all of them: on several machines, on a file system that they share.

    Raises:
        UserError: on every process, where one of them could not write.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        together(lambda: _begin(partial))
        write_shards(partial, _flat(contents))
        together(lambda: checkpoint.finish(partial, folder, config, {**state, "optimizer": contents.scalars}))
    finally:
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)


def save_whole(folder: Path, contents: Contents, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    r"""Gathers a checkpoint on the first process, which writes it as one; called on every process."""
    weights, averages, optimizer = map(_gathered, (contents.weights, contents.averages, contents.optimizer))
    if rank() == 0:
        contents = Contents(weights, averages, optimizer, contents.scalars)
    together(lambda: checkpoint.save(folder, contents, config=config, state=state))


def together(action: Callable[[], object]) -> None:
    r"""Does something on the first process, and raises its mistake on all of them.

    Raises:
        UserError: on every process.
    """
    problem = None
    if rank() == 0:
        try:
            action()
        except (UserError, OSError) as error:
            problem = str(error)
    problem = gather(problem)[0]
    if problem is not None:
        raise UserError(problem)


def restore(start: Path, model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, ema: EMA) -> None:
    r"""Reads a checkpoint, of shards or whole, into a sharded training; called on every process.

    Raises:
        UserError: it is of another model, or damaged.
    """
    weights, averages = model.state_dict(), ema.weights
    shapes = _shapes(start)
    beside = {name for name in shapes if name.startswith(("model.sde.", "model.loss."))}
    state = {name: shape for name, shape in shapes.items() if name.startswith("optimizer.")}
    targets = {f"model.{k}": v for k, v in weights.items()} | {f"ema.{k}": v for k, v in averages.items()}
    targets |= {name: _target(name, shape, optimizer) for name, shape in state.items()}
    targets |= {name: torch.empty(shapes[name]) for name in beside}
    _read(start, targets, shapes)
    checkpoint.load_extras(model, {name.removeprefix("model."): targets[name] for name in beside}, loss, start)
    plain = checkpoint.read_state(start)["optimizer"]
    unpack(optimizer, {name.removeprefix("optimizer."): targets[name] for name in state}, plain)


def _shapes(start: Path) -> dict[str, tuple[int, ...]]:
    r"""Names with their prefix, and whole shapes; of a whole checkpoint, whose averages stand beside all weights."""
    if shard_files(start):
        return shard_shapes(start)
    from scoregen.sizes import header

    names = ("model", "ema", "optimizer")
    return {f"{kind}.{key}": shape for kind in names for key, shape in header(start / f"{kind}.safetensors").items()}


def _read(start: Path, targets: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if shard_files(start):
        extra = shapes.keys() - targets.keys()
        if extra:
            raise UserError(f"checkpoint: the weights of '{start}' do not fit the model: '{min(extra)}' is not of it.")
        load_shards(start, targets)
        return
    for kind in ("model", "ema", "optimizer"):
        tensors = checkpoint.read_tensors(start / f"{kind}.safetensors")
        for name, target in targets.items():
            if name.startswith(f"{kind}."):
                found = tensors.get(name.removeprefix(f"{kind}."))
                if found is None or found.shape != target.shape:
                    raise UserError(f"checkpoint: the weights of '{start}' do not fit the model: '{name}'.")
                target.detach().copy_(like(found, target))


def _target(name: str, shape: tuple[int, ...], optimizer: torch.optim.Optimizer) -> Tensor:
    r"""A place for a tensor of the optimizer: cut as its parameter is, where it has its shape."""
    index = int(name.split(".")[1])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if index < len(parameters) and parameters[index].shape == shape:
        return torch.zeros_like(parameters[index].detach())
    return torch.zeros(shape)


def _flat(contents: Contents) -> dict[str, Tensor]:
    kinds = (("model", contents.weights), ("ema", contents.averages), ("optimizer", contents.optimizer))
    return {f"{kind}.{name}": tensor.detach() for kind, tensors in kinds for name, tensor in tensors.items()}


def _gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Whole tensors in the memory of the first process, one after the other; nothing on the others."""
    found = {}
    for name, tensor in tensors.items():
        one = full(tensor.detach())
        if rank() == 0:
            found[name] = one.cpu()
    return found


def _begin(partial: Path) -> None:
    with translated(f"checkpoint: '{partial}' cannot be written", _REMEDY):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
