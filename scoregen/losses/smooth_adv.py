r"""Adversarial training of smoothed classifiers.

    L = mean_j -log p_j(label | x'),   p_j(x) = softmax f(x + sigma eps_j)
    x' = an input within eps of x at which F = mean_j p_j gives its label a small probability

x' is found by gradient steps on F, with the noise that the loss sees. With eps = 0 it is x, and the loss that of
Gaussian augmentation.
"""

from collections.abc import Sequence

from torch import Tensor

from scoregen import checks
from scoregen.losses.ascent import Ascent, checked_range, warmed
from scoregen.losses.base import Loss
from scoregen.losses.noisy_copies import Classifier, check_noise, log_loss, log_probabilities, noise_of, required
from scoregen.rng import Generators


class SmoothAdv(Loss):
    r"""Cross entropy under noise at attacked inputs: SmoothAdv by projected gradient steps.

        A step costs (attack_steps + 1) forward and backward passes of `num_noises` times the batch. The attack sees the
        classifier in evaluation mode. The strength eps grows linearly over the first part of a training; values of
        the loss at different steps then do not compare.

    Args:
        noise_sigma: standard deviation sigma of the noise, in the units of x, > 0.
        num_noises: draws m of each sample, >= 1.
        eps: l2 radius of the attack, in the units of x, >= 0; 0 is Gaussian augmentation.
        attack_steps: steps T >= 1 of length 2 eps/T.
        warmup: share of the training in which eps grows from 0, in [0, 1].
        data_range: least and largest value of an attacked image; None: no bound.

    Raises:
        ValueError: values out of range.

    Reference: Salman et al. (2019), arXiv 1906.04584, section 2.2, with the projection, the length of a step and the
    training on all draws (`--train-multi-noise`) of the released code.
    """

    needs_labels = True

    def __init__(
        self,
        noise_sigma: float,
        num_noises: int = 2,
        eps: float = 1.0,
        attack_steps: int = 2,
        warmup: float = 0.1,
        data_range: Sequence[float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        check_noise(noise_sigma, num_noises)
        checks.at_least(0, eps=eps)
        checks.whole(1, attack_steps=attack_steps)
        checks.inside(0, 1, warmup=warmup)
        self.noise_sigma, self.num_noises, self.eps = noise_sigma, int(num_noises), eps
        self.attack_steps, self.warmup, self.data_range = int(attack_steps), warmup, checked_range(data_range)
        self.comparable = not warmup
        self._step: tuple[int, int] | None = None

    def at(self, step: int, steps: int) -> None:
        self._step = (step, steps)

    def forward(
        self,
        model: Classifier,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        label = required(label)
        noise = noise_of(x_0, self.noise_sigma, self.num_noises, generator)
        attacked = self.ascent()(model, x_0, label, noise)
        return log_loss(log_probabilities(model, attacked, noise), label)

    def ascent(self) -> Ascent:
        r"""The attack at this step of the training."""
        eps = self.eps * warmed(self._step, self.warmup)
        return Ascent(self.attack_steps if eps else 0, 2 * eps / self.attack_steps, eps, self.data_range)
