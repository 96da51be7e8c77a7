r"""Losses of classifiers, with Gaussian noise on the input for certification by randomised smoothing.

    cross entropy   -log p(label | x + sigma eps)
    consistency     mean_j CE_j + lambda mean_j KL(pbar || p_j) + eta H(pbar)
                    with p_j = p(. | x + sigma eps_j), pbar = mean_j p_j

The noise is in the units of x, before any normalisation of the classifier.
"""

import math

from torch import Tensor
from torch.nn import functional

from scoregen import checks
from scoregen.losses.base import Loss
from scoregen.losses.noisy_copies import (
    Classifier,
    at_least_float32,
    check_noise,
    log_loss,
    log_probabilities,
    noise_of,
    required,
)
from scoregen.rng import Generators


class CrossEntropy(Loss):
    r"""Cross entropy of a classifier on inputs with Gaussian noise.

    Args:
        noise_sigma: standard deviation sigma of the noise, in the units of x; 0 for clean inputs.
        label_smoothing: weight of the uniform distribution in the target, in [0, 1).

    Reference: Cohen, Rosenfeld, Kolter (2019), arXiv 1902.02918, section 3.3 (training with noise).
    """

    needs_labels = True

    def __init__(self, noise_sigma: float = 0.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        checks.at_least(0, noise_sigma=noise_sigma)
        checks.inside(0, 1, "[)", label_smoothing=label_smoothing)
        self.noise_sigma, self.label_smoothing = noise_sigma, label_smoothing

    def forward(
        self,
        model: Classifier,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        label = required(label)
        noisy = x_0 + noise_of(x_0, self.noise_sigma, 1, generator)[0] if self.noise_sigma else x_0
        logits = at_least_float32(model(noisy))
        return functional.cross_entropy(logits, label, reduction="none", label_smoothing=self.label_smoothing)


class ConsistencyRegularization(Loss):
    r"""Cross entropy under noise plus a penalty on predictions that differ between noises.

        Costs one forward pass of `num_noises` times the batch. A larger lambda gives up clean accuracy for larger
        certified radii.

    Args:
        noise_sigma: standard deviation of the noise, in the units of x, > 0.
        num_noises: draws m of each sample, >= 2.
        lbd: weight lambda >= 0 of the divergence between draws.
        eta: weight >= 0 of the entropy of the mean prediction.

    Reference: Jeong, Shin (2020), arXiv 2006.04062, equation 8.
    """

    needs_labels = True

    def __init__(self, noise_sigma: float, num_noises: int = 2, lbd: float = 5.0, eta: float = 0.5) -> None:
        super().__init__()
        check_noise(noise_sigma, num_noises, least=2)
        checks.at_least(0, lbd=lbd, eta=eta)
        self.noise_sigma, self.num_noises, self.lbd, self.eta = noise_sigma, int(num_noises), lbd, eta

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
        log_mean = log_p.logsumexp(0) - math.log(self.num_noises)
        mean = log_mean.exp()
        divergence = (mean * (log_mean - log_p.mean(0))).sum(-1)
        entropy = -(mean * log_mean).sum(-1)
        loss: Tensor = log_loss(log_p, label) + self.lbd * divergence + self.eta * entropy
        return loss
