r"""The contract of a loss, `loss(model, x_0, label, generator) -> (B,)`, and of the denoisers that losses train."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from scoregen.models import DenoiserLike
from scoregen.rng import Generators, rand
from scoregen.sde.process import SDE


class TrainableDenoiser(DenoiserLike, Protocol):
    r"""What a loss needs of a denoiser: besides D(u, s) and the process, the scale of the data and the labels."""

    @property
    def sigma_data(self) -> float:
        r"""Standard deviation of the data in model coordinates."""
        ...

    @property
    def num_classes(self) -> int | None:
        r"""The number of labels, None for an unconditional network."""
        ...


class Loss(nn.Module, ABC):
    r"""The contract of a loss: one value for each sample, from data in their own units.

        A loss is a module, so its buffers are saved with the checkpoint. The base class leaves the type of the model
        open: a loss of a denoiser takes a `TrainableDenoiser`, a loss of a classifier takes logits of images.

    Attributes:
        comparable: whether values of different steps, and of parts of a batch, can be compared; early stopping needs
            it.
        needs_labels: whether the loss cannot be computed without labels.
        sharded: whether the loss supports a model that is cut over the processes: it calls the model alone, reads no
            weights, and keeps no state across samples that a cut would change.
        second_derivatives: whether the loss differentiates the network before its own gradient is taken.
        needs_next: whether the network must be told the next level, as a flow map is.
        consistency: whether it makes D(u, s) the end of the path through u, which the job train states as
            `model.consistency`.
        least_batch: samples that it needs in each process and micro-batch.
    """

    comparable: bool = True
    needs_labels: bool = False
    sharded: bool = False
    second_derivatives: bool = False
    needs_next: bool = False
    consistency: bool = False
    least_batch: int = 1
    __call__: Callable[..., Tensor]  # torch says Any

    @abstractmethod
    def forward(
        self,
        model: Any,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        r"""The loss of each sample.

        Args:
            model: the denoiser (or classifier).
            x_0: data (B, *S) in their own units. label: (B,) or None.
            generator: one, a list with one for each sample, or `Keys`, as the trainer gives them.
            quantile: (B,) in [0, 1): where the noise level of each sample lies in its law. The trainer gives values
                stratified over the global batch; without it they are stratified over this batch.

        Returns:
            (B,).
        """

    def least_s(self, sde: SDE) -> float:
        r"""The least noise ratio that is trained, which the job train states as `model.least_s`; 0: all of them."""
        return 0.0

    def begin(self, model: Any) -> None:
        r"""Called once before a checkpoint is loaded; create state that depends on the model here."""

    def at(self, step: int, steps: int) -> None:
        r"""Called before each of the trainer's `steps` steps. Schedules must be pure functions of step and steps."""

    def trained(self) -> list[nn.Parameter]:
        r"""Called once for the optimizer; return parameters of the loss that are trained with the model's."""
        return []

    def metrics(self) -> dict[str, float]:
        r"""Called at log steps on every process; return further values for the log, such as means since the last call.

        Values of several processes must be combined here.
        """
        return {}


class WrappedLoss(Loss):
    r"""Base class for losses that wrap another loss and forward all trainer callbacks to it.

    Args:
        base_loss: any loss.

    Raises:
        TypeError: base_loss is no loss.
    """

    def __init__(self, base_loss: Loss) -> None:
        super().__init__()
        if not isinstance(base_loss, Loss):
            raise TypeError(f"base_loss must be a loss of scoregen.losses, got {type(base_loss).__name__}.")
        self.base_loss = base_loss
        self.comparable, self.needs_labels = base_loss.comparable, base_loss.needs_labels
        self.sharded = self.sharded and base_loss.sharded
        self.second_derivatives, self.needs_next = base_loss.second_derivatives, base_loss.needs_next
        self.consistency, self.least_batch = base_loss.consistency, base_loss.least_batch

    def least_s(self, sde: SDE) -> float:
        return self.base_loss.least_s(sde)

    def begin(self, model: Any) -> None:
        self.base_loss.begin(model)

    def at(self, step: int, steps: int) -> None:
        self.base_loss.at(step, steps)

    def trained(self) -> list[nn.Parameter]:
        return self.base_loss.trained()

    def metrics(self) -> dict[str, float]:
        return self.base_loss.metrics()


def drop_labels(
    model: TrainableDenoiser, label: Tensor | None, probability: float, generator: Generators
) -> Tensor | None:
    r"""Labels of which a random part is replaced by -1 ("no label"); None for an unconditional model."""
    if label is None or model.num_classes is None:
        return None
    drop = rand((len(label),), generator, torch.float32, label.device) < probability
    return torch.where(drop, -1, label.long())
