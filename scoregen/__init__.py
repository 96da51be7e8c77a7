r"""scoregen: diffusion and score-matching models, additive and multiplicative, with robustness certificates."""

from importlib import import_module
from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # lazy, so that command-line help does not wait for torch
        return import_module("scoregen.checkpoint").load
    raise AttributeError(f"module 'scoregen' has no attribute '{name}'")
