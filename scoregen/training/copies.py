r"""The Accelerator of a training, and the options of the copies of a model that it keeps equal (DDP).

Accelerate gives devices, processes, copies and scaled gradients. Batches stay those of `scoregen.data.Batches`: they
are a function of the step, so that a run that goes on sees what an undisturbed one sees. A loader that is already
split by process and then prepared would be split twice, and lose data without a word.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scoregen.checks import one_of
from scoregen.errors import UserError, closest
from scoregen.training.launcher import Sharding, on_cpu

if TYPE_CHECKING:
    from accelerate import Accelerator

_FLAGS = ("broadcast_buffers", "find_unused_parameters", "gradient_as_bucket_view", "static_graph")
_HOOKS = ("no", "fp16", "bf16", "power_sgd", "batched_power_sgd")
_KINDS = ("NO", "FSDP", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_HPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA")


def check_copies(options: Mapping[str, bool | int | str] | None, sharding: Sharding | None) -> None:
    r"""Refuses options of DDP that do not exist, or that a sharded model would ignore.

    Raises:
        ValueError: it names the option.
    """
    if options is None:
        return
    if sharding is not None:
        raise UserError("trainer.ddp: a sharded model has no copies. Give trainer.ddp=null or trainer.shard=false.")
    for name, value in options.items():
        if name in _FLAGS and not isinstance(value, bool):
            raise UserError(f"trainer.ddp.{name} must be true or false, got {value!r}.")
        if name == "bucket_cap_mb" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UserError(f"trainer.ddp.bucket_cap_mb must be a whole number >= 1, got {value!r}.")
        if name == "comm_hook":
            one_of(_HOOKS, **{"trainer.ddp.comm_hook": str(value)})
        if name not in (*_FLAGS, "bucket_cap_mb", "comm_hook"):
            known = (*_FLAGS, "bucket_cap_mb", "comm_hook")
            raise UserError(f"trainer.ddp.{name}: no such option. {closest(name, known)}")


def make_accelerator(precision: str, options: Mapping[str, bool | int | str] | None) -> "Accelerator":
    r"""The Accelerator of a run.

    Args:
        precision: "no", "bf16" or "fp16".
        options: of DDP.

    Raises:
        UserError: Accelerate has found a kind of hardware that is not supported.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

    rest = {
        "cpu": on_cpu(),
        "dynamo_backend": "no",  # the network is compiled, not the loss around it
        "gradient_accumulation_plugin": GradientAccumulationPlugin(num_steps=1),  # a step counts its micro-batches
        "kwargs_handlers": [DistributedDataParallelKwargs(**options)] if options else [],
    }
    with _without("ACCELERATE_USE_FSDP"):  # sharding is done here, on CPUs too
        try:
            accelerator = Accelerator(mixed_precision=precision, **rest)
        except ValueError:  # Accelerate keeps the precision of the first run of a process for good
            accelerator = Accelerator(**rest)
    if accelerator.distributed_type.name not in _KINDS:
        raise UserError(f"accelerate: {accelerator.distributed_type.name} is not supported. Train on CPUs or GPUs.")
    accelerator.native_amp = False  # each run enters its own autocast, see `scoregen.training.precision`
    accelerator.scaler = torch.amp.GradScaler(accelerator.device.type) if precision == "fp16" else None
    return accelerator


@contextmanager
def _without(variable: str) -> Iterator[None]:
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value
