r"""Score matching of positive data in terms of the Hyvarinen score: against a known one, and without a target.

    h = X grad_X log p_t(X) = (score of log X_t) - 1,   X = x + offset            the Hyvarinen score

    explicit (M-ESM)        E lambda |h_theta - h|^2
    denoising (M-DSM)       E lambda |h_theta + 1 + (log(X_t/X_0) - m)/v|^2 = M-ESM + const
    non-negative, one level E sum[2 X psi + X^2 psi' + X^2 psi^2/2] = E |h_theta - h|^2/2 - E |h|^2/2,  psi = h_theta/X

M-DSM is `DenoisingScoreMatching`: |D - y_0|^2 = (a v)^2 |...|^2 for geometric Brownian motion (a: y = a log X + b), so
`DataWeighting` is lambda = v^2 and `NoiseWeighting` lambda = v, up to the constant a^2.

Reference: Hyvarinen (2007), Some extensions of score matching; Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from scoregen import checks
from scoregen.losses.base import Loss, TrainableDenoiser, drop_labels
from scoregen.losses.jacobian import twice_differentiable
from scoregen.losses.noise_levels import NoiseLevels, UniformTime
from scoregen.losses.score_matching import ScoreMatching
from scoregen.losses.weightings import DataWeighting, Weighting
from scoregen.rng import Generators, randn, random_signs
from scoregen.sde.multiplicative import logarithm
from scoregen.sde.path import expand
from scoregen.sde.process import SDE

Score = Callable[[Tensor, Tensor], Tensor]


class ExplicitScoreMatching(ScoreMatching):
    r"""Score matching against a known Hyvarinen score: w(s) |D_theta - D|^2 / dim with D = u + s sigma (1 + h)/a.

        Denoising score matching with the same noise levels and weighting differs from it by a constant. So a model
        can be fitted to a law in closed form without the noise of the targets, and its distance to the exact score
        can be measured.

    Args:
        score: (x_t, t) -> h (B, *S) for noisy data x_t (B, *S) at times t (B,).
        noise_levels: law of the noise ratio; t uniform unless given.
        weighting: w(s); 1, which is lambda = v^2, unless given.

    Raises:
        TypeError: in `forward`, a model of an additive process.
    """

    def __init__(
        self, score: Score, noise_levels: NoiseLevels | None = None, weighting: Weighting | None = None
    ) -> None:
        super().__init__(noise_levels or UniformTime(), weighting or DataWeighting())
        self.score = score

    def squared_error(self, sde: SDE, denoised: Tensor, y: Tensor, u: Tensor, s: Tensor) -> Tensor:
        t = sde.time_of(s)
        rate = logarithm(sde, type(self).__name__, "Use DenoisingScoreMatching.").rate
        exact = u + expand(s * sde.sigma(t) / rate, u) * (1 + self.score(sde.from_u(u, t), t))
        return (denoised - exact).square()


class NonNegativeScoreMatching(Loss):
    r"""Hyvarinen's score matching for non-negative data, at one noise level: (2 X psi + X^2 psi' + X^2 psi^2/2) / dim.

        It needs no target but the derivative of the network: one more backward pass for each probe. In z = log X it
        is h + dh/dz + h^2/2. The values are half the explicit loss, less a constant, so they may be negative. The sum
        over the dimensions is estimated by random signs, r' (dh/dz) r, which is exact in expectation.

    Args:
        s: the noise ratio of the level, > 0 (in model coordinates). A small one gives the score of the data themselves.
        probes: Rademacher probes for the derivative, >= 1.

    Raises:
        ValueError: s or probes out of range. TypeError: in `forward`, a model of an additive process.

    Reference: Hyvarinen (2007), Some extensions of score matching, Computational Statistics & Data Analysis 51,
        section 3; Song et al. (2019), arXiv 1905.07088 (probes).
    """

    second_derivatives = True

    def __init__(self, s: float, probes: int = 1) -> None:
        super().__init__()
        checks.positive(s=s)
        checks.whole(1, probes=probes)
        self.s, self.probes = float(s), int(probes)

    def forward(
        self,
        model: TrainableDenoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        sde = model.sde
        rate = logarithm(sde, type(self).__name__, "Use DenoisingScoreMatching.").rate
        y = sde.to_chart(x_0)
        t = sde.time_of(self.s)
        label = drop_labels(model, label, 0.0, generator)
        noise = randn(y.shape, generator, y.dtype, y.device)
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            z = ((y + self.s * noise) / rate).detach().requires_grad_()  # dz = d log X_t / alpha
            u = rate * z
            step = float(self.s * sde.sigma(t) / rate)
            with twice_differentiable(u.device.type):
                denoised = model(u, self.s, label)
            h = (denoised - u) / step - 1
            slope = self._slope(h, z, generator, graph) / float(sde.alpha(t))
        return (h + h.square() / 2).flatten(1).mean(1) + slope

    def _slope(self, h: Tensor, z: Tensor, generator: Generators, graph: bool) -> Tensor:
        r"""The mean of dh/dz over the dimensions of each sample, by probes, (B,)."""
        total = h.new_zeros(len(h))
        for _ in range(self.probes):
            signs = random_signs(h.shape, generator, h.dtype, h.device)
            (pulled,) = torch.autograd.grad(h, z, signs, create_graph=graph, retain_graph=True)
            total = total + (pulled * signs).flatten(1).mean(1)
        return total / self.probes
