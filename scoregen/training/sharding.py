r"""Training beyond one device: parameters, averages and optimizer cut over the processes (FSDP2).

Each process keeps a part of every parameter. A unit, such as a block of the network, is gathered for its pass and
freed after it. Accelerate does this for accelerators alone and passes over it on CPUs without a word. So torch's
`fully_shard` is called here, the same on both, and Accelerate keeps devices, processes and scaled steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from scoregen.errors import UserError
from scoregen.losses import Loss
from scoregen.models.regions import blocks, networks
from scoregen.parallel import world_size
from scoregen.training.launcher import Sharding


def check_sharding(model: nn.Module, loss: Loss, precision: str) -> None:
    r"""Refuses what a sharded training would compute otherwise than one with copies.

    Raises:
        UserError: it names what.
    """
    remedy = "Give trainer.shard=false (and launch without --use_fsdp)."
    if not loss.sharded:
        raise UserError(
            f"trainer.shard: the loss {_names(loss)} is not for a sharded model: it reads weights, or keeps state, "
            f"across calls of the model. {remedy}"
        )
    if precision == "fp16":
        raise UserError("trainer.shard: needs trainer.precision bf16 or no, got fp16.")
    tracked = [name for name, part in model.named_modules() if isinstance(part, _NormBase) and part.track_running_stats]
    if tracked:
        raise UserError(f"trainer.shard: '{tracked[0]}' of the model keeps running statistics. {remedy}")
    scalars = [name for name, parameter in model.named_parameters() if parameter.dim() == 0]
    if scalars:
        raise UserError(f"trainer.shard: '{scalars[0]}' of the model is a single number, which cannot be cut. {remedy}")


def _names(loss: Loss) -> str:
    inner = getattr(loss, "base_loss", None)
    return type(loss).__name__ + (f" of {_names(inner)}" if isinstance(inner, Loss) else "")


def shard_model(model: nn.Module, sharding: Sharding, device: torch.device) -> None:
    r"""Cuts a model in place; names of parameters stay the same.

    Args:
        model: whole, the same on every process.
        sharding: how.
        device: of this process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world_size(),))
    for unit in units(model, sharding):
        fully_shard(unit, mesh=mesh, reshard_after_forward=sharding.reshard)
    # what is in no unit is freed after each pass too: the averages take the place of all parts between steps
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def units(model: nn.Module, sharding: Sharding) -> list[nn.Module]:
    r"""The modules that are gathered at a time, the inner ones first.

    Raises:
        UserError: no module is of a class that the launcher names.
    """
    if sharding.least is not None:
        big = [part for part in model.modules() if _parameters(part) >= sharding.least and part is not model]
        return [
            part for part in reversed(big) if not any(_parameters(child) >= sharding.least for child in part.children())
        ]
    if sharding.classes:
        found = [part for part in model.modules() if type(part).__name__ in sharding.classes and part is not model]
        if not found:
            raise UserError(
                f"accelerate: --fsdp_transformer_layer_cls_to_wrap={','.join(sharding.classes)}: the model has no such "
                "module. Leave it out: the blocks of the network are the units."
            )
        return found[::-1]
    own = [block for network in networks(model) for block in blocks(network) if block is not model]
    return [block for block in own if _parameters(block)]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def is_sharded(model: nn.Module) -> bool:
    r"""Whether a model is cut over the processes."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


@contextmanager
def whole(model: nn.Module, sharding: Sharding | None) -> Iterator[None]:
    r"""The time in which every process has the whole of a sharded model, so that each calls it as often as it likes."""
    if not is_sharded(model):
        yield
        return
    gather_model(model)
    try:
        yield
    finally:
        free_model(model, sharding)


def gather_model(model: nn.Module) -> None:
    r"""Makes a sharded model whole on each process, until `free_model`; nothing for another model."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()


def free_model(model: nn.Module, sharding: Sharding | None = None) -> None:
    r"""Leaves each process its part of a sharded model; nothing for another model."""
    from torch.distributed.fsdp import FSDPModule

    reshard = sharding is None or sharding.reshard
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
            module.set_reshard_after_forward(reshard or module is model, recurse=False)


def local(tensor: Tensor) -> Tensor:
    r"""This process's part of a tensor; the tensor where it is not cut."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: Tensor) -> Tensor:
    r"""The whole of a tensor, on every process; called by all of them."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(whole_tensor: Tensor, target: Tensor) -> Tensor:
    r"""A whole tensor, which every process has, cut as `target` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(target, DTensor):
        return whole_tensor
    placed = whole_tensor.to(target.device)
    return distribute_tensor(placed, target.device_mesh, target.placements, src_data_rank=None)
