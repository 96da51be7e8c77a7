r"""What samplers, losses and measures ask of a denoiser: any object with this call and a process will do."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from scoregen.sde.process import SDE


@runtime_checkable
class DenoiserLike(Protocol):
    r"""D(u, s) = E[y_0 | u], u = y_0 + s eps, of a process: a `Denoiser`, a wrapper of one, or a function object."""

    @property
    def sde(self) -> SDE:
        r"""The process, which has the chart and the range of noise ratios."""
        ...

    def __call__(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        r"""E[y_0 | u], (B, *S).

        Args:
            u: state (B, *S) in EDM coordinates. s: noise ratio, () or (B,). label: (B,) integers or None.
        """
        ...
