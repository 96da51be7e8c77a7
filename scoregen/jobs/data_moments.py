r"""Moments of the data in chart coordinates, for the prior of a process; read a batch at a time."""

from typing import Any

from torch import Tensor

from scoregen.data import Source
from scoregen.errors import UserError
from scoregen.progress import progress

_READ = 1000  # samples at a time


def set_moments(model: Any, source: Source, kind: str) -> None:
    r"""Gives the process of a model the mean and variance of the data: of all pixels together, or of each.

    Args:
        model: a denoiser. source: its training part is read. kind: "scalar" or "pixel".

    Raises:
        UserError: the model has no process.
    """
    if not hasattr(model, "sde"):
        raise UserError(f"data_moments: must be null for a {type(model).__name__}, which has no process, got '{kind}'.")
    part, found = source.train, None
    for first in progress(range(0, len(part), _READ), description="moments", unit="batch"):
        y = model.sde.to_chart(part.in_units(slice(first, first + _READ))[0]).double()
        found = merged(found, y.reshape(-1) if kind == "scalar" else y)
    assert found is not None  # a training part has samples
    count, mean, scatter = found
    model.sde.with_moments(mean, scatter / (count - 1))


def merged(found: tuple[int, Tensor, Tensor] | None, y: Tensor) -> tuple[int, Tensor, Tensor]:
    r"""Number, mean and centred sum of squares of what was seen and of more rows (B, ...).

    Reference: Chan, Golub, LeVeque (1983), equation 2.1.
    """
    new = len(y), y.mean(0), (y - y.mean(0)).square().sum(0)
    if found is None:
        return new
    (n, mean, scatter), (m, other, more) = found, new
    step = other - mean
    return n + m, mean + step * (m / (n + m)), scatter + more + step**2 * (n * m / (n + m))
