r"""Joining the processes of a launcher as Accelerate wants it, before anything asks for their number."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from scoregen.checks import positive
from scoregen.errors import UserError
from scoregen.parallel import world_size
from scoregen.training.launcher import on_cpu, refuse_unsupported

MINUTES = 30.0


def start_processes(trainer: Mapping[str, Any] | None = None) -> None:
    r"""Joins the process group of a training; nothing without a launcher.

    Args:
        trainer: the node of the trainer, which may have a `timeout` in minutes: a training that has lost a process
            should end soon, where shares of sampling may end hours apart.

    Raises:
        UserError: the launcher asks for what is not supported, or the timeout is no time.
    """
    refuse_unsupported()
    if world_size() == 1:
        return
    from accelerate import PartialState

    PartialState(cpu=on_cpu(), timeout=patience(trainer or {}))


def patience(trainer: Mapping[str, Any]) -> timedelta:
    r"""How long processes of a training wait for one another."""
    minutes = trainer.get("timeout", MINUTES)
    if isinstance(minutes, bool) or not isinstance(minutes, int | float):
        raise UserError(f"trainer.timeout must be a number of minutes, got {minutes!r}.")
    positive(**{"trainer.timeout": minutes})
    return timedelta(minutes=minutes)
