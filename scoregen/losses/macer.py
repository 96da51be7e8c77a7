r"""Training for a large certified radius, without attacks.

    L = -log F(label) + lambda (sigma/2) max(0, gamma - xi) 1{argmax_k q_k = label}
    xi = Phi^-1(q_label) - Phi^-1(max_(k != label) q_k),   (sigma/2) xi: the radius that q would certify
    F = mean_j softmax f(x + sigma eps_j),   q = mean_j softmax(beta f(x + sigma eps_j))

Samples that q gives another label, and those whose xi is gamma or more, have no radius term. With lambda = 0 and one
draw it is Gaussian augmentation.
"""

import math

import torch
from torch import Tensor

from scoregen import checks
from scoregen.losses.base import Loss
from scoregen.losses.noisy_copies import Classifier, check_noise, log_probabilities, noise_of, one_hot, required
from scoregen.rng import Generators

_LEAST = 1e-6  # of a probability in Phi^-1: 1 - p in float32 says no less; Phi^-1 is 4.75 there
_MAX_GAMMA = 9.0  # below 2 * 4.75


class MACER(Loss):
    r"""Log loss of the soft smoothed classifier plus a hinge on its certified radius.

        Costs one forward pass of `num_noises` times the batch. The radius is that of an estimate from few draws, so it
        is biased and no certificate.

    Args:
        noise_sigma: standard deviation sigma of the noise, in the units of x, > 0.
        num_noises: draws m of each sample, >= 1; the paper's k.
        lbd: weight lambda >= 0 of the radius term.
        gamma: margin of the hinge, in (0, 9]; radii above sigma gamma/2 are not asked for.
        beta: inverse temperature > 0 of the probabilities whose radius it is.
        deferred: share of the training at its start without the radius term, in [0, 1].

    Raises:
        ValueError: values out of range.

    Reference: Zhai et al. (2020), arXiv 2001.02378, section 4 and algorithm 1, with the mask of the released code.
    """

    needs_labels = True

    def __init__(
        self,
        noise_sigma: float,
        num_noises: int = 16,
        lbd: float = 16.0,
        gamma: float = 8.0,
        beta: float = 16.0,
        deferred: float = 0.0,
    ) -> None:
        super().__init__()
        check_noise(noise_sigma, num_noises)
        checks.at_least(0, lbd=lbd)
        checks.inside(0, _MAX_GAMMA, "(]", gamma=gamma)
        checks.positive(beta=beta)
        checks.inside(0, 1, deferred=deferred)
        self.noise_sigma, self.num_noises, self.lbd = noise_sigma, int(num_noises), lbd
        self.gamma, self.beta, self.deferred = gamma, beta, deferred
        self.comparable = not deferred
        self._weight = lbd

    def at(self, step: int, steps: int) -> None:
        self._weight = 0.0 if step < self.deferred * steps else self.lbd

    def forward(
        self,
        model: Classifier,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        label = required(label)
        log_p = log_probabilities(model, x_0, noise_of(x_0, self.noise_sigma, self.num_noises, generator))
        own = one_hot(label, log_p)
        log_f = log_p.logsumexp(0) - math.log(self.num_noises)
        loss = -log_f.gather(-1, label[:, None]).squeeze(-1)
        if not self._weight:
            return loss
        q = (self.beta * log_p).softmax(-1).mean(0)  # log p and the logits differ by a constant
        return loss + self._weight * self.radius_term(q, own)

    def radius_term(self, q: Tensor, own: Tensor) -> Tensor:
        r"""(sigma/2) max(0, gamma - xi), and 0 for samples with another label, shape (B,).

        Args:
            q: probabilities (B, K). own: whether a class is the label (B, K).
        """
        others = q.masked_fill(own, 0.0)
        runner_up = others.amax(-1)
        right = (q.masked_fill(~own, 0.0).sum(-1) > runner_up).to(q.dtype)
        xi = _upper_quantile(others.sum(-1)) + _upper_quantile(runner_up)
        term: Tensor = right * (self.noise_sigma / 2) * (self.gamma - xi).relu()
        return term


def _upper_quantile(tail: Tensor) -> Tensor:
    r"""Phi^-1(1 - tail) = -Phi^-1(tail) of tails in [0, 1], cut at 1e-6; by erfinv, which every device has."""
    return math.sqrt(2.0) * torch.erfinv(1 - 2 * tail.clamp(_LEAST, 1 - _LEAST))
