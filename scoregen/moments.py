r"""The moments of the data, which a process needs for its prior: they travel with the weights of its model."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from scoregen.errors import UserError
from scoregen.sde import SDE

PREFIX = "sde."
_MEAN, _VARIANCE = f"{PREFIX}data_mean", f"{PREFIX}data_var"


def of(model: nn.Module) -> dict[str, Tensor]:
    r"""The moments of the data that a model's process knows; empty where it knows none."""
    sde: SDE | None = getattr(model, "sde", None)
    if sde is None or not bool((sde.data_var > 0).any() or (sde.data_mean != 0).any()):
        return {}
    return {_MEAN: sde.data_mean.contiguous(), _VARIANCE: sde.data_var.contiguous()}


def give(model: nn.Module, moments: Mapping[str, Tensor], file: Path) -> None:
    r"""Sets the moments of the data of a model's process; both or none of them travel with the weights."""
    sde: SDE | None = getattr(model, "sde", None)
    mean, variance = moments.get(_MEAN), moments.get(_VARIANCE)
    if sde is None or mean is None or variance is None or len(moments) != 2 or mean.shape != variance.shape:
        found = ", ".join(f"{name} {tuple(moment.shape)}" for name, moment in sorted(moments.items()))
        of = "none, since its model has no process" if sde is None else f"'{_MEAN}' and '{_VARIANCE}', of one shape"
        raise UserError(
            f"checkpoint: the moments of the data in '{file}' must be {of}, got {found}. Use another checkpoint."
        )
    try:
        sde.with_moments(mean, variance)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"checkpoint: the moments of the data in '{file}' are no moments: {error} Use another checkpoint."
        ) from error
