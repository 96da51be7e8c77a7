r"""Networks that are compiled and laid out for the hardware, in place: names of parameters stay the same.

Only the network is compiled, not the coefficients around it (`scoregen.models.regions`). Random numbers stay those of
the network as it is written (`fallback_random`): dropout masks are shared between two calls from one state, and a run
that goes on draws what an undisturbed one draws.
"""

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scoregen.errors import UserError
from scoregen.models.regions import blocks, convolves, networks


@dataclass(frozen=True)
class Compiler:
    r"""How networks are compiled.

    Args:
        backend, mode, fullgraph: of `torch.compile`.
        dynamic: False for a graph of each shape, so that what is computed does not depend on the shapes before; None
            leaves it to torch.
        regional: the blocks of a network one by one: it starts faster, and blocks that are recomputed need it.
    """

    backend: str = "inductor"
    mode: str = "default"
    fullgraph: bool = False
    dynamic: bool | None = None
    regional: bool = False

    def __call__(self, model: nn.Module) -> None:
        r"""Compiles a model's networks in place; the work is done at their first call."""
        arguments: dict[str, Any] = {"backend": self.backend, "dynamic": self.dynamic, "fullgraph": self.fullgraph}
        if self.backend == "inductor":  # which takes a mode or options
            arguments["options"] = {**torch._inductor.list_mode_options(self.mode), "fallback_random": True}
        for network in networks(model):
            for part in blocks(network) if self.regional else [network]:
                part.compile(**arguments)


def as_written(model: nn.Module) -> AbstractContextManager[Any]:
    r"""A context in which a model's networks run as they are written.

    What is rare, with other shapes, need not be compiled, and cannot change which graphs there are.
    """
    compiled = any(module._compiled_call_impl is not None for module in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def compiles(device: torch.device) -> bool:
    r"""Whether compiling pays on a device: on accelerators that Triton knows; on a CPU it takes long and gains none."""
    from torch.utils._triton import has_triton

    return device.type not in ("cpu", "mps") and has_triton()


def check_compiler(device: torch.device, key: str) -> None:
    r"""Refuses to compile where torch could not.

    Args:
        device: of the network. key: that asks for it, for the message.

    Raises:
        UserError: there is no C++ compiler for a CPU, no Triton for an accelerator.
    """
    if device.type == "cpu":
        if not any(shutil.which(name) for name in _compilers()):
            raise UserError(f"{key}: true needs a C++ compiler on a CPU, and none was found. Install g++, or set CXX.")
    elif not compiles(device):
        raise UserError(
            f"{key}: true needs Triton on a device of type {device.type}, and it was not found. Leave it out."
        )


def _compilers() -> list[str]:
    return [name for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name]


def lay_out(model: nn.Module, channels_last: bool | None, device: torch.device) -> None:
    r"""Puts a model on a device, convolutions with the channels last where that pays (None): on accelerators."""
    last = device.type != "cpu" if channels_last is None else channels_last
    if last and convolves(model):
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lists fewer
    else:
        model.to(device)
