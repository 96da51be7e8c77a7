r"""scoregen: diffusion and score-matching models, additive and multiplicative, with robustness certificates."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoregen.jobs import (
        Certify,
        Compare,
        Demo,
        Dual,
        Evaluate,
        Export,
        FitGrid,
        Gallery,
        Impute,
        Interpolate,
        Predict,
        Restore,
        Sample,
        Smoothness,
        Sweep,
        TableModel,
        Targets,
        Train,
    )
    from scoregen.loading import load

__version__ = "0.2.0"
__all__ = [
    "Certify",
    "Compare",
    "Demo",
    "Dual",
    "Evaluate",
    "Export",
    "FitGrid",
    "Gallery",
    "Impute",
    "Interpolate",
    "Predict",
    "Restore",
    "Sample",
    "Smoothness",
    "Sweep",
    "TableModel",
    "Targets",
    "Train",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:  # lazy, so that command-line help does not wait for torch
    if name in __all__:
        return getattr(import_module("scoregen.loading" if name == "load" else "scoregen.jobs"), name)
    raise AttributeError(f"module 'scoregen' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
