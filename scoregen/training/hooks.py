r"""Hooks: what is done at every n-th step with the averaged weights (previews, metrics, early stopping)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from scoregen.checks import at_least


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
    r"""Base class of hooks: called every `every` steps and after the last one, also of a training that stops early.

    Args:
        every: steps, >= 1.
    """

    stop: bool = False  # set by a hook to end the training after a checkpoint

    def __init__(self, every: int) -> None:
        at_least(1, every=every)
        self.every = every

    def begin(self, folder: Path, step: int) -> None:
        r"""Called once before the first step; read what an earlier part of the run left.

        Args:
            folder: the run folder. step: steps done before, 0 in a new run.
        """
        return

    @abstractmethod
    def __call__(self, moment: Moment) -> None:
        r"""Called at its steps, on every process; do the work here."""
