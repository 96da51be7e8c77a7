r"""Estimates of |J_u^T v| for the Jacobian J_u = dD/du of a denoiser and a random direction v = z/sqrt(d), z ~ N(0, I).

| estimator | value | cost of a training step, FLOPs |
|---|---|---|
| vector-Jacobian product | \|J^T v\|, exact; the gradient is a second backward pass through the first | 2.0-2.5 |
| finite difference | \|D(u + h s z) - D(u)\|/(h s sqrt(d)) = \|J v\| + O(h) | 2.0 |

Forward-mode products are not offered: their gradient through layer normalisation is wrong without a warning.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoregen import checks
from scoregen.losses.base import TrainableDenoiser
from scoregen.losses.stand_in import StandIn
from scoregen.rng import Generators, forked, randn
from scoregen.sde.path import as_time, expand


class _Call(NamedTuple):
    u: Tensor
    s: Tensor
    label: Tensor | None
    options: dict[str, Any]
    denoised: Tensor
    random_state: list[Tensor]


class Witness(StandIn):
    r"""Stands in for a denoiser and remembers the first call with a gradient, where a base loss looked.

    Args:
        model: the denoiser. estimator: makes that call, in full precision.
    """

    def __init__(self, model: TrainableDenoiser, estimator: "Estimator") -> None:
        super().__init__(model)
        self._estimator = estimator
        self._call: _Call | None = None

    def __call__(self, u: Tensor, s: Tensor | float, label: Tensor | None = None, **options: Any) -> Tensor:
        if self._call is not None or not torch.is_grad_enabled():
            return self._model(u, s, label, **options)
        state, u = random_state(u.device), self._estimator.prepare(u)
        with self._estimator.context(u.device.type):
            denoised = self._model(u, s, label, **options)
        self._call = _Call(u, as_time(s).expand(len(u)).contiguous(), label, options, denoised, state)
        return denoised

    @property
    def u(self) -> Tensor:
        r"""The noisy points (B, *S)."""
        return self._seen().u

    @property
    def s(self) -> Tensor:
        r"""Their noise ratios (B,), float64."""
        return self._seen().s

    @property
    def denoised(self) -> Tensor:
        r"""D at these points (B, *S), with its graph."""
        return self._seen().denoised

    def again(self, u: Tensor) -> Tensor:
        r"""D at other points, with the levels, labels and dropout mask of the remembered call."""
        seen = self._seen()
        with forked(u.device), self._estimator.context(u.device.type):
            restore_random_state(seen.random_state, u.device)
            return self._model(u, seen.s, seen.label, **seen.options)

    def _seen(self) -> _Call:
        if self._call is None:
            raise ValueError(
                "base_loss must call the denoiser with a gradient, and it did not. Penalties on the Jacobian need the "
                "loss of a denoiser."
            )
        return self._call


def random_state(device: torch.device) -> list[Tensor]:
    r"""The states of the global generators, from which dropout draws."""
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.get_device_module(device).get_rng_state()]


def restore_random_state(states: list[Tensor], device: torch.device) -> None:
    r"""Restores the states returned by `random_state`."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.get_device_module(device).set_rng_state(states[1])


class Estimator(ABC):
    r"""A rule for |J_u^T v|, differentiable in the parameters."""

    second_derivatives: bool = False  # whether its gradient is one of a gradient

    def prepare(self, u: Tensor) -> Tensor:
        r"""Called with the points of the first call; return them as the network should see them."""
        return u

    def context(self, device_type: str) -> AbstractContextManager[None]:
        r"""The context of all calls of the network.

        It turns autocast off: bfloat16 would drown a difference of two calls, and the Jacobian, in rounding errors.
        """
        return full_precision(device_type)

    @abstractmethod
    def norm(self, seen: Witness, generator: Generators) -> Tensor:
        r"""|J_u^T v| of each sample, (B,), with v drawn from the generator."""


class FiniteDifference(Estimator):
    r"""|D(u + h s z) - D(u)| / (h s sqrt(d)), with one dropout mask; D(u) is the base loss's own.

    Args:
        h: step in units of the noise, > 0. On a trained network .1 errs by .1 to 3 %, .01 by .01 to .3 %.

    Raises:
        ValueError: h <= 0.
    """

    def __init__(self, h: float = 0.1) -> None:
        checks.positive(h=h)
        self.h = float(h)

    def norm(self, seen: Witness, generator: Generators) -> Tensor:
        u, step = seen.u, expand(self.h * seen.s, seen.u)
        moved = seen.again(u + step * _directions(u, generator))
        change = ((moved - seen.denoised) / step).flatten(1)
        length: Tensor = torch.linalg.vector_norm(change, dim=1)
        return length / math.sqrt(change.shape[1])


class VJP(Estimator):
    r"""|J_u^T v| by reverse mode, differentiated again.

    Fused attention has no second derivative, so attention is computed by its formula. Checkpointed networks need
    `use_reentrant=False`.
    """

    second_derivatives = True

    def prepare(self, u: Tensor) -> Tensor:
        return u if u.requires_grad else u.detach().requires_grad_()  # a base loss may differentiate through its own u

    def context(self, device_type: str) -> AbstractContextManager[None]:
        return twice_differentiable(device_type)

    def norm(self, seen: Witness, generator: Generators) -> Tensor:
        u = seen.u
        v = _directions(u, generator) / math.sqrt(u[0].numel())
        (product,) = torch.autograd.grad(seen.denoised, u, v, create_graph=True)
        length: Tensor = torch.linalg.vector_norm(product.flatten(1), dim=1)
        return length


def _directions(u: Tensor, generator: Generators) -> Tensor:
    r"""Normal draws like u, whose samples are the first, or all, of those that the generator is for."""
    samples = len(u) if generator is None or isinstance(generator, torch.Generator) else len(generator)
    return randn((samples, *u.shape[1:]), generator, u.dtype, u.device)[: len(u)]


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    r"""Turns autocast off."""
    with torch.autocast(device_type, enabled=False):
        yield


@contextmanager
def twice_differentiable(device_type: str) -> Iterator[None]:
    r"""Turns off autocast and fused attention, which has no second derivative."""
    with torch.autocast(device_type, enabled=False), sdpa_kernel(SDPBackend.MATH):
        yield


ESTIMATORS: dict[str, type[Estimator]] = {"finite_difference": FiniteDifference, "vjp": VJP}
