r"""What monitors share: what they choose by, what a run measured before, and the parts that processes computed."""

from pathlib import Path

import torch
from torch import Tensor

from scoregen.data import Dataset, Source
from scoregen.errors import UserError
from scoregen.parallel import gather
from scoregen.training.loggers import read_metrics


def validation_part(source: Source, key: str) -> Dataset:
    r"""The part that a checkpoint may be chosen by.

    Raises:
        UserError: there is none; names the key that needs it.
    """
    if source.part("validation") is None:
        raise UserError(
            f"{key}: needs a validation part, and {source.name} has none; on the test part it would choose what looks "
            "best there. Give data.validation=0.1, which holds out a tenth of the training part."
        )
    return source.validation


def past_values(folder: Path, name: str, before: int) -> list[float]:
    r"""The numbers of this name that a run logged before a step; the first process's, on every process."""
    return gather([line[name] for line in read_metrics(folder) if name in line and line["step"] < before])[0]


def in_order(parts: dict[int, Tensor]) -> Tensor:
    r"""The parts of all processes in the order of their keys, concatenated, on every process."""
    found = {first: value for part in gather(parts) for first, value in part.items()}
    return torch.cat([found[first] for first in sorted(found)])
