r"""Hooks: what is done every so many steps with the averaged weights (previews, metrics, early stopping)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn


@dataclass(frozen=True)
class Moment:
    r"""What a hook sees.

    Args:
        step: steps done. model: with the averaged weights, in evaluation mode. folder: run folder.
        log: writes numbers to the loggers. picture: shows a picture file to them. save: writes checkpoints/NAME.
    """

    step: int
    model: nn.Module
    folder: Path
    log: Callable[[dict[str, float]], None]
    picture: Callable[[str, Path], None]
    save: Callable[[str], None]


class Hook(ABC):
    r"""Called every `every` steps and after the last one (of a training that stops early too), on every process.

    Args:
        every: steps, >= 1.
    """

    stop: bool = False  # set by a hook to end the training after a checkpoint

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be >= 1 step, got every={every}.")
        self.every = every

    def begin(self, folder: Path, step: int) -> None:
        r"""Called once before the first step: with the run folder, and how many steps an earlier part of it did."""
        return

    @abstractmethod
    def __call__(self, moment: Moment) -> None:
        r"""Does its work."""
