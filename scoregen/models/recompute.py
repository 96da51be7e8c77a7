r"""Activation checkpointing: what is inside a block is computed again in the backward pass, not kept.

The second pass gives the same numbers as the first: dropout draws again from the same state, running statistics of
normalisations stay as they are, and attention uses the kernels of the first pass. (Fused kernels save other tensors
than attention by its formula, so a pass under `sdpa_kernel(MATH)`, of a loss with second derivatives, cannot be
recomputed outside it.)
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from scoregen.models.regions import blocks, networks

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_KINDS: dict[type[nn.Module], type[nn.Module]] = {}


def recompute_blocks(model: nn.Module) -> None:
    r"""Makes the blocks of a model's networks recompute themselves wherever gradients are taken, in place.

    Names of parameters, and what the model computes, stay the same.
    """
    for network in networks(model):
        for block in blocks(network):
            kind = type(block)
            block.__class__ = _KINDS.setdefault(kind, _recomputing(kind))


def _recomputing(kind: Any) -> type[nn.Module]:
    r"""A class like `kind` whose call is recomputed; a subclass, so that copies of a model are their own."""

    class Recomputing(kind):  # type: ignore[misc]  # a class that is known when it runs
        def __call__(self, *arguments: Any, **named: Any) -> Any:
            norms = [module for module in self.modules() if isinstance(module, _NORMS)]
            return recomputed(super().__call__, *arguments, norms=norms, **named)

    Recomputing.__name__, Recomputing.__qualname__ = kind.__name__, kind.__qualname__
    return Recomputing


def recomputed(function: Callable[..., Any], *arguments: Any, norms: Iterable[nn.Module] = (), **named: Any) -> Any:
    r"""function(*arguments, **named), computed again in the backward pass, in place of keeping what is inside.

    Args:
        norms: normalisations inside, whose running statistics the second pass leaves alone.
    """
    if not torch.is_grad_enabled():
        return function(*arguments, **named)
    again = _Again(norms)
    options: dict[str, Any] = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), again)}
    return checkpoint(function, *arguments, **options, **named)


class _Again:
    r"""The second pass: the attention kernels that are allowed now; a context that can be entered again and again."""

    def __init__(self, norms: Iterable[nn.Module]) -> None:
        allowed: tuple[tuple[Callable[[], bool], SDPBackend], ...] = (
            (torch.backends.cuda.flash_sdp_enabled, SDPBackend.FLASH_ATTENTION),
            (torch.backends.cuda.mem_efficient_sdp_enabled, SDPBackend.EFFICIENT_ATTENTION),
            (torch.backends.cuda.cudnn_sdp_enabled, SDPBackend.CUDNN_ATTENTION),
            (torch.backends.cuda.math_sdp_enabled, SDPBackend.MATH),
        )
        self.backends = [backend for enabled, backend in allowed if enabled()]
        self.norms = [norm for norm in norms if norm.training and getattr(norm, "track_running_stats", False)]
        self._entered: list[tuple[Any, list[Any]]] = []

    def __enter__(self) -> None:
        kernels = sdpa_kernel(self.backends)
        kernels.__enter__()
        self._entered.append((kernels, [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]))
        for norm in self.norms:  # a step of length 0, which is not counted
            _set(norm, 0.0, None)

    def __exit__(self, *error: Any) -> None:
        kernels, before = self._entered.pop()
        for norm, (momentum, tracked) in zip(self.norms, before, strict=True):
            _set(norm, momentum, tracked)
        kernels.__exit__(*error)


def _set(norm: Any, momentum: float | None, tracked: Any) -> None:
    norm.momentum, norm.num_batches_tracked = momentum, tracked
