r"""What samplers, losses and measures ask of a denoiser: any object with this call and a process will do."""

from typing import Protocol, cast, runtime_checkable

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


class FlowMapLike(DenoiserLike, Protocol):
    r"""D(u, s, r), a denoiser that may be told the level r that a jump goes to: u_r = D + (r/s) (u - D)."""

    @property
    def takes_next(self) -> bool:
        r"""Whether it does; a wrapper does where the denoiser inside does."""
        ...

    def __call__(
        self, u: Tensor, s: Tensor | float, label: Tensor | None = None, *, next_s: Tensor | float | None = None
    ) -> Tensor:
        r"""D(u, s, next_s), (B, *S): E[y_0 | u] for next_s None or s, the end of the path for 0.

        Args:
            u, s, label: as in `DenoiserLike`. next_s: noise ratio that the jump goes to, () or (B,); None: no jump.
        """
        ...


def check_mean(denoiser: object) -> None:
    r"""Refuses a consistency function, whose D is no posterior mean, so that (u - D)/s is not the flow.

    Raises:
        ValueError: it is one.
    """
    if getattr(denoiser, "is_consistency", False):
        raise ValueError(
            "the denoiser must be a posterior mean, got a consistency function, which has no density and no encoding. "
            "Use the diffusion model that it was made of."
        )


def takes_next(denoiser: object) -> bool:
    r"""Whether a denoiser is a flow map, which is told the next level."""
    return bool(getattr(denoiser, "takes_next", False))


def jump(
    denoiser: DenoiserLike, u: Tensor, s: Tensor | float, label: Tensor | None, next_s: Tensor | float | None
) -> Tensor:
    r"""D(u, s, next_s) of a flow map; D(u, s) of any denoiser for next_s None."""
    if next_s is None:
        return denoiser(u, s, label)
    return cast(FlowMapLike, denoiser)(u, s, label, next_s=next_s)
