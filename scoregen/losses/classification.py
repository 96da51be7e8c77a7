r"""Losses of classifiers, with Gaussian noise on the input for certification by randomised smoothing.

    cross entropy   -log p(label | x + sigma eps)
    consistency     mean_j CE_j + lambda mean_j KL(pbar || p_j) + eta H(pbar)
                    with p_j = p(. | x + sigma eps_j), pbar = mean_j p_j

The noise is in the units of x, before any normalisation of the classifier.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from scoregen import checks
from scoregen.losses.base import Loss
from scoregen.rng import Generators, randn

Classifier = Callable[[Tensor], Tensor]  # logits (B, K) of inputs (B, *S)


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
        label = _required(label)
        logits = _at_least_float32(model(_noisy(x_0, self.noise_sigma, 1, generator)))
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
        if noise_sigma == 0:
            raise ValueError("noise_sigma must be > 0 and finite, got noise_sigma=0. Use CrossEntropy without noise.")
        checks.positive(noise_sigma=noise_sigma)
        checks.whole(2, num_noises=num_noises)
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
        label = _required(label)
        noisy = _noisy(x_0, self.noise_sigma, self.num_noises, generator)
        logits = _at_least_float32(model(noisy)).reshape(self.num_noises, len(x_0), -1)
        log_p = logits.log_softmax(-1)
        log_mean = log_p.logsumexp(0) - math.log(self.num_noises)
        mean = log_mean.exp()
        cross_entropy = -log_p.mean(0).gather(-1, label[:, None]).squeeze(-1)
        divergence = (mean * (log_mean - log_p.mean(0))).sum(-1)
        entropy = -(mean * log_mean).sum(-1)
        loss: Tensor = cross_entropy + self.lbd * divergence + self.eta * entropy
        return loss


def _noisy(x: Tensor, sigma: float, draws: int, generator: Generators) -> Tensor:
    r"""x + sigma eps for each draw, shape (draws * B, *S), draw by draw."""
    if sigma == 0:
        return x
    eps = randn((len(x), draws, *x.shape[1:]), generator, x.dtype, x.device)
    return (x[:, None] + sigma * eps).transpose(0, 1).flatten(0, 1)


def _at_least_float32(logits: Tensor) -> Tensor:
    r"""Logits in float32 at least: bfloat16 ones of an autocast network lose small probabilities."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _required(label: Tensor | None) -> Tensor:
    if label is None:
        raise ValueError("label must be given to train a classifier, got None. Choose data with labels.")
    return label.long()
