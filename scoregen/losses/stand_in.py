r"""Stand-ins for a denoiser, which let a wrapping loss see how the loss inside it calls the network."""

from typing import Any

from scoregen.losses.base import TrainableDenoiser
from scoregen.sde.process import SDE


class StandIn:
    r"""Looks like a given denoiser: has its process, labels and other attributes; subclasses define the call.

    Args:
        model: the denoiser.
    """

    def __init__(self, model: TrainableDenoiser) -> None:
        self._model = model

    @property
    def sde(self) -> SDE:
        return self._model.sde

    @property
    def sigma_data(self) -> float:
        return self._model.sigma_data

    @property
    def num_classes(self) -> int | None:
        return self._model.num_classes

    def __getattr__(self, name: str) -> Any:  # what a loss asks of one kind of denoiser, such as its latents
        return getattr(self._model, name)
