r"""Counts what would make a host wait for its accelerator, without one: torch's `meta` device stands in for it.

    with Spy() as spy:
        ...                    # on device "meta"
    spy.waits, spy.copies      # lists of what was done

A wait is a look at a value on the device, or a copy from it. A copy is one to the device, of more than a single number;
single numbers on the CPU take part in sums and products on a device without one. What an operation computes is not
known, so a look at a value gives 0.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.optim import optimizer as optimizers
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils as foreach
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scoregen.training import step

DEVICE = torch.device("meta")
_ops = torch.ops.aten
# the size of what they give depends on values
_SIZES = ("nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave")


class _Made(TorchFunctionMode):
    r"""Notes tensors made on the device of values of the host, torch.tensor([...], device=...)."""

    def __init__(self, copies: list[tuple[tuple[int, ...], torch.dtype]]) -> None:
        super().__init__()
        self.copies = copies

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        values = {torch.tensor: 0, torch.as_tensor: 0, Tensor.new_tensor: 1}.get(func)
        if values is not None and made.device == DEVICE and not isinstance(args[values], Tensor):
            self.copies.append((tuple(made.shape), made.dtype))
        return made


class Spy(TorchDispatchMode):
    r"""Notes waits and copies while it is entered.

    Attributes:
        waits: names of operations. copies: (shape, dtype) of tensors that went to the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.copies: list[tuple[tuple[int, ...], torch.dtype]] = []

        self._made = _Made(self.copies)

    def __enter__(self) -> Self:
        self._made.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._made.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [t for t in tensors if t.device == DEVICE]
        here = [t for t in tensors if t.device.type == "cpu" and t.ndim]
        if func is _ops._local_scalar_dense.default and there:
            self.waits.append("item")
            return 0.0 if there[0].is_floating_point() else False if there[0].dtype == torch.bool else 0
        if func is _ops._to_copy.default and there and torch.device(kwargs.get("device") or DEVICE).type == "cpu":
            return self._read(there[0], kwargs.get("dtype"))
        if func is _ops.copy_.default and there and args[0].device.type == "cpu":
            self.waits.append("copy")
            return args[0].zero_()
        if there and func.overloadpacket.__name__ in _SIZES:
            self.waits.append(func.overloadpacket.__name__)
        self._note_copies(func, kwargs, there, here)
        return func(*args, **kwargs)

    def _read(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        self.waits.append("copy")
        return torch.zeros(x.shape, dtype=dtype or x.dtype)

    def _note_copies(self, func: Any, kwargs: dict[str, Any], there: list[Tensor], here: list[Tensor]) -> None:
        goes = func is _ops._to_copy.default and kwargs.get("device") == DEVICE
        if goes or there:  # an operation on both, such as indexing, copies too
            self.copies += [(tuple(t.shape), t.dtype) for t in here]


@contextmanager
def stand_in() -> Iterator[None]:
    r"""Lets torch's fused optimizers and our steps run on the stand-in, which has no autocast."""
    fused = foreach._get_fused_kernels_supported_devices
    with (
        patch.object(optimizers, fused.__name__, lambda: [*fused(), DEVICE.type]),
        patch.object(foreach, fused.__name__, lambda: [*fused(), DEVICE.type]),
        patch.object(step, "autocast", lambda *_: nullcontext()),
    ):
        yield


class OneDevice:
    r"""The parts of Accelerate that a step calls, for one process on a device."""

    scaler = None  # of gradients in float16

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, *parts):
        return parts

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters, clip: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, clip)
