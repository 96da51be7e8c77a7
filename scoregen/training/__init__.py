r"""Training: the loop, averages, schedules, loggers and hooks."""

from scoregen.training.ema import EMA
from scoregen.training.exponentiated_gradient import ExponentiatedGradient
from scoregen.training.hooks import Hook, Moment
from scoregen.training.loggers import JSONLines, Logger, NoLogger, TensorBoard, WandB
from scoregen.training.schedule import Constant, Cosine, InverseSqrt, Schedule
from scoregen.training.trackers import Trackers
from scoregen.training.trainer import Trainer

__all__ = [
    "EMA",
    "Constant",
    "Cosine",
    "ExponentiatedGradient",
    "Hook",
    "InverseSqrt",
    "JSONLines",
    "Logger",
    "Moment",
    "NoLogger",
    "Schedule",
    "TensorBoard",
    "Trackers",
    "Trainer",
    "WandB",
]
