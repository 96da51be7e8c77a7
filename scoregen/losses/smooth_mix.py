r"""Training on the lines from inputs to attacked inputs, with labels that fade to the uniform distribution.

    L = mean_j -log p_j(label | x) + eta 1{argmax F(x) = label} mean_j KL(y' || p_j(. | x'))
    x' = (1 - lambda) x + lambda x_adv,   y' = (1 - lambda) F(x) + lambda/K,   lambda ~ U(0, 1/2)
    p_j(x) = softmax f(x + sigma eps_j),   F = mean_j p_j

x_adv is found by gradient steps on F, not bound to a ball: it is far, and the classifier learns to be unsure there.
With eta = 0 the loss is that of Gaussian augmentation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from scoregen import checks
from scoregen.losses.ascent import Ascent, checked_range, warmed
from scoregen.losses.base import Loss
from scoregen.losses.noisy_copies import Classifier, check_noise, log_loss, log_probabilities, noise_of, required
from scoregen.rng import Generators, rand
from scoregen.sde.path import expand


class SmoothMix(Loss):
    r"""Cross entropy under noise plus a mixup between inputs and inputs attacked without a bound.

        A step costs (attack_steps + 2) forward and backward passes of `num_noises` times the batch. The attack sees the
        classifier in evaluation mode. As in the released code the gradient passes through the targets y' too. The
        variant whose clean side is attacked by one step is not offered.

    Args:
        noise_sigma: standard deviation sigma of the noise, in the units of x, > 0.
        num_noises: draws m of each sample, >= 1.
        attack_steps: steps T >= 1 of the attack.
        step_size: l2 length alpha > 0 of a step, in the units of x.
        eta: weight >= 0 of the mixup.
        warmup: share of the training in which eta grows from 0, in [0, 1].
        data_range: least and largest value of an attacked image; None: no bound.

    Raises:
        ValueError: values out of range.

    Reference: Jeong et al. (2021), arXiv 2111.09277, section 3.
    """

    needs_labels = True

    def __init__(
        self,
        noise_sigma: float,
        num_noises: int = 4,
        attack_steps: int = 4,
        step_size: float = 1.0,
        eta: float = 5.0,
        warmup: float = 0.1,
        data_range: Sequence[float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        check_noise(noise_sigma, num_noises)
        checks.whole(1, attack_steps=attack_steps)
        checks.positive(step_size=step_size)
        checks.at_least(0, eta=eta)
        checks.inside(0, 1, warmup=warmup)
        self.noise_sigma, self.num_noises, self.eta = noise_sigma, int(num_noises), eta
        self.attack_steps, self.step_size = int(attack_steps), step_size
        self.warmup, self.data_range = warmup, checked_range(data_range)
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
        weight = self.eta * warmed(self._step, self.warmup)
        if not weight:
            return log_loss(log_probabilities(model, x_0, noise), label)
        ascent = Ascent(self.attack_steps, self.step_size, None, self.data_range)
        attacked = ascent(model, x_0, label, noise)
        log_p = log_probabilities(model, x_0, noise)
        mean = log_p.exp().mean(0)
        part = 0.5 * rand((len(x_0),), generator, mean.dtype, mean.device)
        x, target = self.mixed(x_0, attacked, mean, part)
        mixup = divergence(target, log_probabilities(model, x, noise))
        right = (mean.argmax(-1) == label).to(mean.dtype)
        return log_loss(log_p, label) + weight * right * mixup

    def mixed(self, x: Tensor, attacked: Tensor, mean: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        r"""Points x' (B, *S) and targets y' (B, K).

        Args:
            x, attacked: (B, *S). mean: F(x), (B, K). part: lambda (B,), in [0, 1/2).
        """
        point = torch.lerp(x, attacked, expand(part, x).to(x.dtype))
        return point, (1 - part[:, None]) * mean + part[:, None] / mean.shape[-1]


def divergence(target: Tensor, log_p: Tensor) -> Tensor:
    r"""mean_j KL(target || p_j), shape (B,), of probabilities (B, K) and log probabilities (m, B, K)."""
    log_target = target.clamp_min(torch.finfo(target.dtype).tiny).log()
    return (target * (log_target - log_p.mean(0))).sum(-1)
