r"""What a run measured before, which monitors compare with; and the parts that processes computed, put together."""

from pathlib import Path

import torch
from torch import Tensor

from scoregen.parallel import gather
from scoregen.training.loggers import read_metrics


def past_values(folder: Path, name: str, before: int) -> list[float]:
    r"""The numbers of this name that a run logged before a step; the first process's, on every process."""
    return gather([line[name] for line in read_metrics(folder) if name in line and line["step"] < before])[0]


def in_order(parts: dict[int, Tensor]) -> Tensor:
    r"""The parts of all processes in the order of their keys, concatenated, on every process."""
    found = {first: value for part in gather(parts) for first, value in part.items()}
    return torch.cat([found[first] for first in sorted(found)])
