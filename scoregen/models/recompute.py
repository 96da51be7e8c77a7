r"""Gradient checkpointing that recomputes with the attention kernels of the first pass.

Fused kernels save other tensors than attention by its formula, so a pass under `sdpa_kernel(MATH)` (a loss with second
derivatives) cannot be recomputed outside it.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    r"""function(*arguments), computed again in the backward pass, in place of keeping what is inside."""
    kernels = _Kernels()
    return checkpoint(function, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), kernels))


class _Kernels:
    r"""The attention kernels that are allowed now, as a context that can be entered again and again."""

    def __init__(self) -> None:
        allowed: tuple[tuple[Callable[[], bool], SDPBackend], ...] = (
            (torch.backends.cuda.flash_sdp_enabled, SDPBackend.FLASH_ATTENTION),
            (torch.backends.cuda.mem_efficient_sdp_enabled, SDPBackend.EFFICIENT_ATTENTION),
            (torch.backends.cuda.cudnn_sdp_enabled, SDPBackend.CUDNN_ATTENTION),
            (torch.backends.cuda.math_sdp_enabled, SDPBackend.MATH),
        )
        self.backends = [backend for enabled, backend in allowed if enabled()]
        self._entered: list[Any] = []

    def __enter__(self) -> None:
        self._entered.append(sdpa_kernel(self.backends))
        self._entered[-1].__enter__()

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)
