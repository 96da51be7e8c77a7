r"""Which precision the hardware computes fast in."""

import torch

from scoregen.checks import one_of

PRECISIONS = ("auto", "bf16", "no")


def bf16_is_native() -> bool:
    r"""Whether the accelerator, or without one the processor, multiplies in bfloat16."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        module = torch.get_device_module(accelerator)
        if module is torch.cuda:  # which counts slow emulation on old cards
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return bool(getattr(module, "is_bf16_supported", bool)())
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def mixed_precision(precision: str) -> str:
    r"""Accelerate's name for a precision: "bf16" or "no".

    Args:
        precision: "auto", "bf16" or "no".

    Raises:
        ValueError: anything else.
    """
    one_of(PRECISIONS, precision=precision)
    if precision == "auto":
        return "bf16" if bf16_is_native() else "no"
    return precision
