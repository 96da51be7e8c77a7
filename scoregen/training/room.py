r"""Whether the checkpoints of a run have room on the disk, said before it starts."""

import shutil
import sys
from collections.abc import Iterable

from torch import Tensor

from scoregen.averages import snapshot_steps
from scoregen.parallel import rank
from scoregen.training.parts import Parts

_MOMENTS = 2  # of an optimizer such as AdamW, a number of each a weight


def say_room(parts: Parts) -> None:
    r"""Warns, on the first process, where the disk has less room than the checkpoints of this run will need."""
    if rank() > 0:
        return
    place = next(path for path in (parts.folder.resolve(), *parts.folder.resolve().parents) if path.exists())
    need, free = needed(parts), shutil.disk_usage(place).free
    if need > free:
        print(
            f"trainer.keep_last: the checkpoints of this run need about {_megabytes(need)}, and '{parts.folder}' has "
            f"{_megabytes(free)} free. Free some, or keep fewer: a run ends where its disk is full.",
            file=sys.stderr,
        )


def needed(parts: Parts) -> int:
    r"""Bytes of the checkpoints that are still to be written: one more than are kept, since old ones go last."""
    settings, step = parts.settings, parts.progress.step
    there = len(list(parts.folder.glob("checkpoints/step_*/state.json")))
    kept = min(settings.keep_last + 1, -(-settings.steps // settings.checkpoint_every))
    forever = 0 if settings.keep_every is None else (settings.steps - step) // settings.keep_every
    return size_of_checkpoint(parts) * max(1, kept + forever - there) + _snapshots(parts)


def _snapshots(parts: Parts) -> int:
    r"""Bytes of the snapshots of averages that are still to be written: half of the weights each."""
    settings, powers = parts.settings, parts.powers
    left = sum(at > parts.progress.step for at in snapshot_steps(settings.steps, settings.ema_snapshots))
    return 0 if powers is None else left * sum(_bytes(values.values()) for values in powers.values.values()) // 2


def size_of_checkpoint(parts: Parts) -> int:
    r"""Bytes of a checkpoint: weights, as they are and averaged, and the state of the optimizer."""
    trained = _bytes(parameter for parameter in parts.model.parameters() if parameter.requires_grad)
    powers = 0 if parts.powers is None else sum(_bytes(values.values()) for values in parts.powers.values.values())
    return 2 * _bytes(parts.model.state_dict().values()) + _MOMENTS * trained + powers


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
