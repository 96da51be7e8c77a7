r"""The denoiser of "Dale meets Langevin": a network that sees the raw noisy X = x_t + offset and gives its score.

With log X = (y - b)/a on the log chart and sqrt(v) = sigma/a the deviation of log X_t given X_0,

    h = X F (F the Stein score) or h = F           h: the Hyvarinen score, (score of log X_t) - 1
    eps = -sqrt(v) (1 + h)
    D = u - s eps = u + s sqrt(v) (1 + h)          for geometric Brownian motion u + a v (1 + h)

so that |D - y_0|^2 = (a v)^2 |h + 1 + (log(X_t/X_0) - m)/v|^2 for alpha = 1: the paper's loss with lambda = v^2.

Reference: Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730.
"""

from torch import Tensor, nn

from scoregen.checks import one_of, positive
from scoregen.models.denoiser import AbstractDenoiser, evaluate
from scoregen.sde.multiplicative import logarithm
from scoregen.sde.path import as_time, expand
from scoregen.sde.process import SDE


class RawDenoiser(AbstractDenoiser):
    r"""A network in data space, without preconditioning: raw X_t and the time t in, a score out.

        The paper's form, for comparisons. `Denoiser`, which sees the standardised log X_t and gives a unit-variance
        mix of data and noise, needs fewer calls and less training. X_t = X_0 exp(m + sqrt(v) eps) leaves the range
        of floating-point numbers for a large v: this form is for processes that do not erase the data, like
        `GeometricBrownianMotion(0.8)` with `data_moments=pixel`.

    Args:
        network: (X_t, t, label) -> tensor like X_t; X_t > 0 (B, *S), t in [0, 1] (B,), label (B,) or None.
        sde: a multiplicative process.
        sigma_data: standard deviation of the data in model coordinates, for weightings that ask for it.
        prediction: "stein", the score of X_t, which is multiplied by X_t; or "hyvarinen", that product itself.

    Raises:
        ValueError: sigma_data <= 0 or an unknown prediction. TypeError: an additive process.

    Reference: Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730.
    """

    def __init__(self, network: nn.Module, sde: SDE, sigma_data: float = 0.5, prediction: str = "stein") -> None:
        super().__init__()
        positive(sigma_data=sigma_data)
        one_of(SCORES, prediction=prediction)
        self.network, self.sde = network, sde
        self.sigma_data, self.prediction = float(sigma_data), prediction
        self.log_rate = logarithm(sde, "RawDenoiser", "Use Denoiser.").rate
        self._hyvarinen = SCORES[prediction]

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        s = as_time(s)
        t = self.sde.time_of(s.clamp_min(self.sde.noise_ratio(0.0).item()))  # losses may go on to the data themselves
        y = expand(self.sde.alpha(t), u) * u + expand(self.sde.shift(t), u)
        x = self.log_rate * self.sde.chart.inverse_derivatives(y)[0]  # psi' = X/a
        output = evaluate(self.network, x, t, label)
        step = s * self.sde.sigma(t) / self.log_rate
        return u + expand(step, u) * (1 + self._hyvarinen(x, output))


def _stein(x: Tensor, output: Tensor) -> Tensor:
    return x * output


def _same(x: Tensor, output: Tensor) -> Tensor:
    return output


SCORES = {"stein": _stein, "hyvarinen": _same}
