r"""How fast the network of a training computes: compiled, laid out, recomputed, in TF32; what it computes is the same.

Each key is the configuration's, else the launcher's, else what pays on the device: see docs/scale.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from scoregen.errors import UserError
from scoregen.losses import Loss
from scoregen.models.compiled import Compiler, check_compiler, compiles, lay_out
from scoregen.models.recompute import recompute_blocks
from scoregen.training.launcher import Compilation, Launched, agreed, launched_compile, launched_recompute
from scoregen.training.settings import Settings


def speed_up(model: nn.Module, loss: Loss, settings: Settings, device: torch.device) -> None:
    r"""Moves a model to a device and makes it fast there, in place; before its optimizer is made.

    Raises:
        UserError: what was asked for is not possible.
    """
    compiler = compiler_of(loss, settings, device)
    lay_out(model, False if settings.sharding else settings.channels_last, device)  # sharded parameters are plain
    if compiler is not None:
        compiler(model)
    if recomputes(settings):
        recompute_blocks(model)


def recomputes(settings: Settings) -> bool:
    r"""Whether blocks are computed again in the backward pass, as the configuration and the launcher agree."""
    asked = agreed("recompute", settings.recompute, launched_recompute())
    return asked is True


def compiler_of(loss: Loss, settings: Settings, device: torch.device) -> Compiler | None:
    r"""How the network is compiled, as the configuration and the launcher agree; None: it is not.

    Raises:
        UserError: they contradict each other, the loss takes second derivatives, or there is no compiler.
    """
    launched = launched_compile()
    wish = None if launched is None else Launched(launched.value is not None, launched.source)
    wanted = agreed("compile", settings.compile, wish)
    if wanted is None:
        wanted = compiles(device) and not loss.second_derivatives
    if not wanted:
        return None
    if loss.second_derivatives:
        raise UserError(
            f"trainer.compile: must be false for {type(loss).__name__}, which differentiates the network twice; torch "
            "compiles first derivatives only. Give trainer.compile=false."
        )
    how = launched.value if launched is not None and launched.value is not None else Compilation()
    if how.backend == "inductor":
        check_compiler(device, "trainer.compile")
    regional = how.regional or recomputes(settings) or settings.sharding is not None
    return Compiler(how.backend, how.mode, how.fullgraph, bool(how.dynamic), regional)


@contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    r"""Products of float32 matrices on CUDA by torch's rule of this name ("high": TF32); other devices keep theirs."""
    before = torch.get_float32_matmul_precision()
    try:
        if device.type == "cuda":
            torch.set_float32_matmul_precision(precision)
        yield
    finally:
        torch.set_float32_matmul_precision(before)
