r"""Which precision the hardware computes fast in."""

import torch


def bf16_is_native() -> bool:
    r"""Whether the accelerator, or without one the processor, multiplies in bfloat16."""
    if torch.accelerator.is_available():
        module = torch.get_device_module(torch.accelerator.current_accelerator())
        if module is torch.cuda:  # which counts slow emulation on old cards
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return bool(getattr(module, "is_bf16_supported", bool)())
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def mixed_precision(precision: str) -> str:
    r"""Accelerate's name for a precision.

    Args:
        precision: "auto", "bf16" or "no".

    Raises:
        ValueError: anything else.
    """
    if precision not in ("auto", "bf16", "no"):
        raise ValueError(f"precision must be auto, bf16 or no, got precision='{precision}'.")
    if precision == "auto":
        return "bf16" if bf16_is_native() else "no"
    return precision
