r"""The denoiser D(u, s) = E[y_0 | u], u = y_0 + s eps, from a network F(z, c_noise, label).

    D = c_skip u + c_out F(c_in u, c_noise),   c_in = 1/sqrt(s^2 + sd^2) but for flow,   c_noise = log(s)/4 unless told

| prediction | c_skip | c_out | F estimates |
|---|---|---|---|
| edm | sd^2/(s^2 + sd^2) | s sd/sqrt(s^2 + sd^2) | a unit-variance mix of y_0 and eps |
| x0 | 0 | 1 | y_0 |
| eps | 1 | -s | eps |
| v | 1/(1 + s^2) | -s/sqrt(1 + s^2) | v = (eps - s y_0)/sqrt(1 + s^2) |
| flow | 1/(1 + s) | -s/(1 + s) | eps - y_0, from c_in u = (1 - t) y_0 + t eps with t = s/(1 + s), c_in = 1/(1 + s) |
| consistency | sd^2/((s - s_0)^2 + sd^2) | (s - s_0) sd/sqrt(s^2 + sd^2) | as edm, but D(u, s_0) = u at the least s_0 |

| time | c_noise | of networks that |
|---|---|---|
| log | log(s)/4 | are trained here, or with EDM |
| index | k, the index of a level of a `DiscretePath` | are trained as a DDPM |
| flow | t = s/(1 + s) | are trained by flow matching |

A network with `next_level` makes it a flow map D(u, s, r), which is told the level r that a jump goes to
(`scoregen.losses.flow_map`).

Reference: Karras et al. (2022), arXiv 2206.00364, table 1; Salimans & Ho (2022), arXiv 2202.00512 (v); Lipman et al.
(2023), arXiv 2210.02747 (flow); Song et al. (2023), arXiv 2303.01469, appendix C (consistency).
"""

import copy
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from scoregen.checks import at_least, one_of, positive
from scoregen.models.next_level import gap_of
from scoregen.models.preconditioning import PREDICTIONS, TIMES
from scoregen.sde.discrete import DiscretePath
from scoregen.sde.multiplicative import logarithm
from scoregen.sde.path import as_time, expand, readable
from scoregen.sde.process import SDE


class AbstractDenoiser(nn.Module):
    r"""The contract of a denoiser: `forward(u, s, label) -> E[y_0 | u]` and an `sde`; wrappers keep it."""

    compiled_parts: ClassVar[tuple[str, ...]] = ("network",)  # where its network is (models/regions.py)
    sde: SDE
    least_s: float = 0.0  # the least noise ratio that it learned, below which D(u, s) is D(u, least_s); 0: all

    @property
    def num_classes(self) -> int | None:
        r"""The number of labels, None for an unconditional network, or none."""
        return getattr(getattr(self, "network", None), "num_classes", None)

    @property
    def shape(self) -> tuple[int, ...] | None:
        r"""The shape (*S) of one sample in data units, None where no network says it."""
        return shape_of(getattr(self, "network", None))

    @property
    def is_consistency(self) -> bool:
        r"""Whether D(u, s) is stated to be the end of the path through u, not the mean E[y_0 | u]."""
        return False

    @property
    def takes_next(self) -> bool:
        r"""Whether it is a flow map: `forward` also takes next_s, the level that a jump goes to."""
        return False

    @abstractmethod
    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        r"""E[y_0 | u].

        Args:
            u: (B, *S) in EDM coordinates; s: noise ratio, () or (B,); label: (B,) integers or None.
        """

    def denoised(self, x_t: Tensor, t: Tensor | float, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""E[y_0 | x_t] and the noisy u, for data x_t (B, *S) at time t.

        Raises:
            ValueError: where there is no noise (s = 0) or only noise (alpha = 0).
        """
        u, s = self.sde.to_u(x_t, t)
        if readable(s) and not bool((s > 0).all()):
            raise ValueError(
                f"t must be > 0 for {type(self.sde).__name__}, got t = 0, where there is no noise to estimate."
            )
        return self(u, s, label), u

    def eps(self, x_t: Tensor, t: Tensor | float, label: Tensor | None = None) -> Tensor:
        r"""E[eps | x_t] = (u - D)/s, (B, *S)."""
        denoised, u = self.denoised(x_t, t, label)
        return (u - denoised) / expand(self.sde.noise_ratio(t), u)

    def score(self, x_t: Tensor, t: Tensor | float, label: Tensor | None = None) -> Tensor:
        r"""grad_y log q_t(y_t) = -eps/sigma in chart coordinates, (B, *S)."""
        eps = self.eps(x_t, t, label)
        return -eps / expand(self.sde.sigma(t), eps)

    def v(self, x_t: Tensor, t: Tensor | float, label: Tensor | None = None) -> Tensor:
        r"""(alpha eps - sigma y_0)/sqrt(alpha^2 + sigma^2), (B, *S). Reference: Salimans & Ho (2022)."""
        denoised, u = self.denoised(x_t, t, label)
        s = expand(self.sde.noise_ratio(t), u)
        return ((u - denoised) / s - s * denoised) / (1 + s**2).sqrt()

    def hyvarinen_score(self, x_t: Tensor, t: Tensor | float, label: Tensor | None = None) -> Tensor:
        r"""(x + offset) grad_x log p_t(x) = (score of log(x + offset)) - 1, (B, *S); log charts only.

        Raises:
            TypeError: for an additive process.
        """
        rate = logarithm(self.sde, "hyvarinen_score", "Use score.").rate
        return rate * self.score(x_t, t, label) - 1


class Denoiser(AbstractDenoiser):
    r"""A network with preconditioning.

    Args:
        network: (z, c_noise, label) -> tensor like z; z (B, *S), c_noise (B,), label (B,) or None.
        sde: the process.
        sigma_data: standard deviation of the data in model coordinates.
        prediction: "edm", "x0", "eps", "v", "flow" or "consistency".
        time: how the network is told the noise: "log", "index" or "flow".
        least_s: least noise ratio of its training, where the loss has one (`Loss.least_s`). Lower ones are told as it,
            and it is the `s_min` of the denoiser's process.
        consistency: whether a loss of consistency trains it (`Loss.consistency`), so that D(u, s) is the end of the
            path through u and not the mean E[y_0 | u].

    Raises:
        ValueError: sigma_data <= 0, least_s < 0, an unknown prediction or time, time="index" on a path without levels,
            or prediction="consistency" of a network that is told the next level.
    """

    def __init__(
        self,
        network: nn.Module,
        sde: SDE,
        sigma_data: float = 0.5,
        prediction: str = "edm",
        time: str = "log",
        least_s: float = 0.0,
        consistency: bool = False,
    ) -> None:
        super().__init__()
        positive(sigma_data=sigma_data)
        at_least(0, least_s=least_s)
        one_of(PREDICTIONS, prediction=prediction)
        one_of(TIMES, time=time)
        if time == "index" and not isinstance(sde, DiscretePath):
            raise ValueError(f"time=index needs a DiscretePath, whose levels it counts, got {type(sde).__name__}.")
        self.network, self.sde = network, sde
        self.sigma_data, self.prediction, self.time = float(sigma_data), prediction, time
        self._scales, self._time = PREDICTIONS[prediction], TIMES[time]
        self.consistency = consistency
        if (tell := getattr(network, "tell_time", None)) is not None:
            tell(time)
        self._least = sde.noise_ratio(0.0).item()
        self.least_s = least_s
        if self.takes_next and prediction == "consistency":
            raise ValueError(
                "prediction=consistency is D(u, s) = the end of the path, and a network with next_level=true is told "
                "where to go. Use prediction=edm."
            )

    @property
    def least_s(self) -> float:
        return self._least_s

    @least_s.setter
    def least_s(self, least: float) -> None:
        self._least_s = float(least)
        if least > self.sde.s_min:  # samplers, likelihoods and encodings end there
            self.sde = copy.copy(self.sde)
            self.sde.s_min = self._least_s

    @property
    def is_consistency(self) -> bool:
        return self.consistency or self.prediction == "consistency"

    @property
    def takes_next(self) -> bool:
        return bool(getattr(self.network, "next_level", False))

    def forward(
        self, u: Tensor, s: Tensor | float, label: Tensor | None = None, *, next_s: Tensor | float | None = None
    ) -> Tensor:
        r"""E[y_0 | u]; of a flow map D(u, s, next_s), where u_r = D + (r/s) (u - D) is the point at r = next_s.

        Args:
            u: (B, *S) in EDM coordinates; s: noise ratio, () or (B,); label: (B,) integers or None.
            next_s: noise ratio that a jump goes to, () or (B,), 0 for the data; None: no jump.

        Raises:
            ValueError: next_s for a network that does not take it.
        """
        s = as_time(s)
        if self.least_s:
            s = s.clamp_min(self.least_s)
        c_in, c_skip, c_out = self._scales(s, self.sigma_data, self._least)
        gap = None if next_s is None else self._gap(s, as_time(next_s))
        output = evaluate(self.network, expand(c_in, u) * u, self._time(s, self.sde), label, gap)
        return expand(c_skip, u) * u + expand(c_out, u) * output

    def _gap(self, s: Tensor, next_s: Tensor) -> Tensor:
        if not self.takes_next:
            raise ValueError(
                f"next_s must be None for a {type(self.network).__name__} that is not told the next level. Train a "
                "flow map: loss=flow_map."
            )
        return gap_of(s, next_s, self.sigma_data)


_SAMPLE = " For a network of diffusers take scoregen.models.DiffusersNetwork."


def evaluate(
    network: nn.Module, z: Tensor, condition: Tensor, label: Tensor | None, gap: Tensor | None = None
) -> Tensor:
    r"""A network's output, like z, at z (B, *S) in its own type; condition and gap, () or (B,), have at least float32.

    Args:
        gap: of the jump, for networks that are told it; None is not handed over.
    """
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), z.dtype)
    options = {} if gap is None else {"gap": _of_each(gap, z, dtype)}
    output: Tensor = network(z.to(dtype), _of_each(condition, z, dtype), label, **options)
    if not isinstance(output, Tensor) or output.shape != z.shape:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        remedy = (
            "" if isinstance(output, Tensor) else " Return the tensor itself." + _SAMPLE * hasattr(output, "sample")
        )
        raise ValueError(
            f"{type(network).__name__} must return a tensor like z, {tuple(z.shape)}, got {found}.{remedy}"
        )
    return output.to(z)


def _of_each(value: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
    r"""A value () or (B,) as (B,), where z is, in at least float32."""
    wanted = torch.promote_types(dtype, torch.float32)
    if value.ndim == 0 and readable(value):  # a number is written on the device, not copied to it
        value = z.new_full((z.shape[0],), value.item(), dtype=wanted)
    return value.expand(z.shape[0]).to(z.device, wanted)


def shape_of(network: object) -> tuple[int, ...] | None:
    r"""The shape of a sample that a network or denoiser states, None where it states none."""
    shape = getattr(network, "shape", None)
    return None if shape is None else tuple(shape)
