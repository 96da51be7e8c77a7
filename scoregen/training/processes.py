r"""Joining the processes of a launcher as Accelerate wants it, before anything asks for their number."""

from scoregen.parallel import PATIENCE, world_size


def start_processes() -> None:
    r"""Joins the process group of a training; nothing without a launcher."""
    if world_size() == 1:
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
