r"""Monitors: hooks that watch a training by its averaged weights: pictures, numbers, and the best checkpoint."""

from scoregen.monitors.accuracy import Accuracy
from scoregen.monitors.early_stopping import EarlyStopping
from scoregen.monitors.few_calls import FewCalls
from scoregen.monitors.lora_export import ExportLoRA, PromptPreview
from scoregen.monitors.preview import Preview, trajectory
from scoregen.monitors.quality import Quality

__all__ = [
    "Accuracy",
    "EarlyStopping",
    "ExportLoRA",
    "FewCalls",
    "Preview",
    "PromptPreview",
    "Quality",
    "trajectory",
]
