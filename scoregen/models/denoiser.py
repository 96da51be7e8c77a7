r"""The denoiser D(u, s) = E[y_0 | u], u = y_0 + s eps, from a network F(z, c_noise, label).

    D = c_skip u + c_out F(c_in u, c_noise),   c_in = 1/sqrt(s^2 + sd^2),   c_noise = log(s)/4

| prediction | c_skip | c_out | F estimates |
|---|---|---|---|
| edm | sd^2/(s^2 + sd^2) | s sd/sqrt(s^2 + sd^2) | a unit-variance mix of y_0 and eps |
| x0 | 0 | 1 | y_0 |
| eps | 1 | -s | eps |
| v | 1/(1 + s^2) | -s/sqrt(1 + s^2) | v = (eps - s y_0)/sqrt(1 + s^2) |

Reference: Karras et al. (2022), arXiv 2206.00364, table 1; Salimans & Ho (2022), arXiv 2202.00512 (v).
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from scoregen.checks import one_of, positive
from scoregen.sde.multiplicative import logarithm
from scoregen.sde.path import as_time, expand
from scoregen.sde.process import SDE


class AbstractDenoiser(nn.Module):
    r"""The contract of a denoiser: `forward(u, s, label) -> E[y_0 | u]` and an `sde`; wrappers keep it."""

    sde: SDE

    @property
    def num_classes(self) -> int | None:
        r"""The number of labels, None for an unconditional network."""
        return None

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
        if not bool((s > 0).all()):
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
        prediction: "edm", "x0", "eps" or "v".

    Raises:
        ValueError: sigma_data <= 0 or an unknown prediction.
    """

    def __init__(self, network: nn.Module, sde: SDE, sigma_data: float = 0.5, prediction: str = "edm") -> None:
        super().__init__()
        positive(sigma_data=sigma_data)
        one_of(PREDICTIONS, prediction=prediction)
        self.network, self.sde = network, sde
        self.sigma_data, self.prediction = float(sigma_data), prediction
        self._skip_and_out = PREDICTIONS[prediction]

    @property
    def num_classes(self) -> int | None:
        return getattr(self.network, "num_classes", None)

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        s = as_time(s)
        c_skip, c_out = self._skip_and_out(s, self.sigma_data)
        c_in = (s**2 + self.sigma_data**2).rsqrt()
        output = evaluate(self.network, expand(c_in, u) * u, s.log() / 4, label)
        return expand(c_skip, u) * u + expand(c_out, u) * output


def evaluate(network: nn.Module, z: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
    r"""A network's output, like z, at z (B, *S) in its own type; the condition () or (B,) has at least float32."""
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), z.dtype)
    condition = condition.expand(len(z)).to(z.device, torch.promote_types(dtype, torch.float32))
    output: Tensor = network(z.to(dtype), condition, label)
    return output.to(z)


def _edm(s: Tensor, sd: float) -> tuple[Tensor, Tensor]:
    return sd**2 / (s**2 + sd**2), s * sd / (s**2 + sd**2).sqrt()


def _x0(s: Tensor, sd: float) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(s), torch.ones_like(s)


def _eps(s: Tensor, sd: float) -> tuple[Tensor, Tensor]:
    return torch.ones_like(s), -s


def _v(s: Tensor, sd: float) -> tuple[Tensor, Tensor]:
    return 1 / (1 + s**2), -s / (1 + s**2).sqrt()


PREDICTIONS = {"edm": _edm, "x0": _x0, "eps": _eps, "v": _v}
