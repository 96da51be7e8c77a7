r"""Losses of classifiers, with Gaussian noise on the input for certification by randomised smoothing.

    cross entropy   -log p(label | x + sigma eps)
    consistency     mean_j CE_j + lambda mean_j KL(pbar || p_j) + eta H(pbar)
                    with p_j = p(. | x + sigma eps_j), pbar = mean_j p_j

The noise is in the units of x, before any normalisation of the classifier.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.losses.score_matching import Loss
from scoregen.rng import Generators, randn


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
        _check_sigma(noise_sigma)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must satisfy 0 <= label_smoothing < 1, got {label_smoothing}.")
        self.noise_sigma, self.label_smoothing = noise_sigma, label_smoothing

    def forward(
        self,
        model: nn.Module,
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

        One forward pass of `num_noises` times the batch. lambda trades clean accuracy for large certified radii.

    Args:
        noise_sigma: standard deviation of the noise, in the units of x, > 0.
        num_noises: draws m >= 2 of each sample.
        lbd: weight lambda >= 0 of the divergence between draws.
        eta: weight >= 0 of the entropy of the mean prediction.

    Reference: Jeong, Shin (2020), arXiv 2006.04062, equation 8.
    """

    needs_labels = True

    def __init__(self, noise_sigma: float, num_noises: int = 2, lbd: float = 5.0, eta: float = 0.5) -> None:
        super().__init__()
        _check_sigma(noise_sigma)
        if noise_sigma == 0:
            raise ValueError(
                "noise_sigma must be positive for consistency between noises, got 0; use CrossEntropy instead."
            )
        if not isinstance(num_noises, int) or num_noises < 2:
            raise ValueError(
                f"num_noises must be an integer >= 2, got {num_noises}; with one there is nothing to compare."
            )
        if not (0 <= lbd < math.inf and 0 <= eta < math.inf):
            raise ValueError(f"lbd and eta must be >= 0 and finite, got lbd={lbd}, eta={eta}.")
        self.noise_sigma, self.num_noises, self.lbd, self.eta = noise_sigma, num_noises, lbd, eta

    def forward(
        self,
        model: nn.Module,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        label = _required(label)
        noisy = _noisy(x_0, self.noise_sigma, self.num_noises, generator)
        logits = _at_least_float32(model(noisy)).unflatten(0, (self.num_noises, len(x_0)))
        log_p = logits.log_softmax(-1)
        log_mean = log_p.logsumexp(0) - math.log(self.num_noises)
        mean = log_mean.exp()
        cross_entropy = -log_p.mean(0).gather(-1, label[:, None]).squeeze(-1)
        divergence = (mean * (log_mean - log_p.mean(0))).sum(-1)
        entropy = -(mean * log_mean).sum(-1)
        return cross_entropy + self.lbd * divergence + self.eta * entropy


def _noisy(x: Tensor, sigma: float, draws: int, generator: Generators) -> Tensor:
    r"""x + sigma eps for each draw, shape (draws * B, *S), draw by draw."""
    if sigma == 0:
        return x
    eps = randn((len(x), draws, *x.shape[1:]), generator, x.dtype, x.device)
    return (x[:, None] + sigma * eps).transpose(0, 1).flatten(0, 1)


def _at_least_float32(logits: Tensor) -> Tensor:
    r"""bfloat16 logits of an autocast network lose small probabilities."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _required(label: Tensor | None) -> Tensor:
    if label is None:
        raise ValueError("label must be given to train a classifier, got None; choose data with labels.")
    return label.long()


def _check_sigma(noise_sigma: float) -> None:
    if not 0 <= noise_sigma < math.inf:
        raise ValueError(f"noise_sigma must be >= 0 and finite, got {noise_sigma}.")
