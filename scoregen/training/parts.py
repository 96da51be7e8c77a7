r"""What a training consists of, and how far it has come."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import nn

from scoregen.config import Config
from scoregen.data import Source
from scoregen.losses import Loss
from scoregen.training.ema import EMA
from scoregen.training.hooks import Hook
from scoregen.training.loggers import Logger
from scoregen.training.power_averages import PowerAverages
from scoregen.training.settings import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class Progress:
    r"""How far a run has come: the step and what is counted beside it; part of every checkpoint.

    Args:
        step: steps done.
        skipped: steps with a non-finite gradient, in all.
        skipped_in_a_row: those since the last good step.
        window: sums of the meter since the last log step.
        hooks_due: classes of the hooks of this step that did not run because one before them failed.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    window: tuple[float, float, int] = (0.0, 0.0, 0)
    hooks_due: list[str] = field(default_factory=list)


class Made(TypedDict):
    r"""The parts that the settings make of a model and a loss."""

    accelerator: "Accelerator"
    optimizer: torch.optim.Optimizer
    rates: Sequence[float]
    ema: EMA
    powers: PowerAverages | None
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Parts:
    r"""The objects of one training.

    Args:
        settings: how it runs.
        seed: seed of everything random.
        accelerator: devices and processes.
        model: trained in place.
        loss: loss(model, x, label, generator, quantile) -> (B,).
        optimizer: of the model.
        rates: base learning rate of each group of the optimizer.
        ema: the averaged weights. powers: averages of further lengths, where snapshots of them are kept.
        source: the data.
        folder: the run folder.
        config: the resolved configuration, written into every checkpoint.
        progress: counted on.
        loggers: on the first process.
        hooks: on every process.
    """

    settings: Settings
    seed: int
    accelerator: "Accelerator"
    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    rates: Sequence[float]
    ema: EMA
    source: Source
    folder: Path
    config: Config
    progress: Progress
    powers: PowerAverages | None = None
    loggers: Sequence[Logger] = ()
    hooks: Sequence[Hook] = ()
