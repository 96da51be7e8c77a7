r"""Which precision the hardware computes fast in."""

import torch

from scoregen.checks import one_of
from scoregen.errors import UserError
from scoregen.training.launcher import agreed, launched_precision, on_cpu

PRECISIONS = ("auto", "bf16", "fp16", "no")
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def bf16_is_native() -> bool:
    r"""Whether the accelerator, or without one the processor, multiplies in bfloat16."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and not on_cpu():
        module = torch.get_device_module(accelerator)
        if module is torch.cuda:  # which counts slow emulation on old cards
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return bool(getattr(module, "is_bf16_supported", bool)())
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def mixed_precision(precision: str | None) -> str:
    r"""Accelerate's name for the precision of a training: "bf16", "fp16" or "no".

    Args:
        precision: of the configuration; None for the launcher's, and "auto" where that says nothing.

    Raises:
        ValueError: another name, fp16 on a CPU, or a precision that is not the launcher's.
    """
    if precision is not None:
        one_of(PRECISIONS, precision=precision)
    launched = launched_precision()
    if precision == "auto" or (precision is None and launched is None):
        precision = "bf16" if bf16_is_native() else "no"
    found = agreed("precision", precision, launched) or "no"
    if found == "fp16" and on_cpu():
        raise UserError("precision must be bf16 or no on a CPU, which has no fast float16, got precision='fp16'.")
    return found


def autocast(device: torch.device, precision: str) -> torch.autocast:
    r"""The context in which a network computes in a precision.

    Accelerate keeps the precision of the first run of a process for good. The runs of a sweep may differ in theirs, so
    that each enters its own.
    """
    return torch.autocast(device.type, _TYPES.get(precision, torch.bfloat16), enabled=precision != "no")
