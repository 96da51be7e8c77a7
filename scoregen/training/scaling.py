r"""Scaled gradients of float16, where bfloat16 is missing.

The loss is multiplied by a scale, so that small gradients do not vanish. A step whose gradient overflows is skipped and
halves the scale; 2000 good steps double it. Both happen on the device, and the scale is part of a checkpoint.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


class Scaling:
    r"""The scale of a training in float16; nothing in another precision.

    Args:
        accelerator: whose `backward` multiplies the loss.
        optimizer: whose gradients are divided again.
    """

    def __init__(self, accelerator: "Accelerator", optimizer: torch.optim.Optimizer) -> None:
        self.scaler: torch.amp.GradScaler | None = accelerator.scaler
        self.optimizer = optimizer

    def unscale(self) -> None:
        r"""Divides the gradients by the scale and looks whether they are finite; before they are clipped."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)

    def update(self) -> None:
        r"""Halves or doubles the scale, after the step."""
        if self.scaler is not None:
            self.scaler.update()


def state_of(accelerator: "Accelerator") -> dict[str, Any]:
    r"""The scale as plain data for a checkpoint; empty in other precisions."""
    return {} if accelerator.scaler is None else {"scaler": accelerator.scaler.state_dict()}


def restore_scale(accelerator: "Accelerator", state: Mapping[str, Any]) -> None:
    r"""Goes on with the scale of a checkpoint, where it has one."""
    if accelerator.scaler is not None and "scaler" in state:
        accelerator.scaler.load_state_dict(state["scaler"])
