r"""Steps whose gradient is not finite are left out without a look at it: the device decides, and counts them.

An optimizer that takes `found_inf`, as all fused ones of torch do, gets the verdict as a number on the device: with 1
it leaves parameters and state alone. Any other one has to be kept from its step by the host, which waits for the
verdict.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scoregen.training.sharding import local


def bad(norm: Tensor) -> Tensor:
    r"""1 where a gradient norm is not finite, else 0; a float32 number on its device."""
    return (norm * 0 != 0).float()  # 0 but for an infinity and nan


def takes_verdict(optimizer: torch.optim.Optimizer) -> bool:
    r"""Whether an optimizer skips a step by itself, told by `found_inf`; of a sharded model, none is asked to."""
    first = optimizer.param_groups[0]["params"][0]
    return local(first) is first and bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def guarded_step(optimizer: torch.optim.Optimizer, step: Callable[[], Any], verdict: Tensor) -> None:
    r"""A step of an optimizer unless the verdict is 1.

    Args:
        optimizer: whose step it is. step: does it (by way of Accelerate, perhaps). verdict: of `bad`.
    """
    if takes_verdict(optimizer):
        told: Any = optimizer  # an attribute that torch's own scaler of gradients sets, too
        told.found_inf = verdict
        try:
            step()
        finally:
            vars(optimizer).pop("found_inf", None)
    elif not bool(verdict):
        step()
