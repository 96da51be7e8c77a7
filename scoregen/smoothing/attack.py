r"""An attack on the smoothed classifier, to check certificates by trying to break them.

Projected gradient descent on x' within an l2 ball, on the loss -log mean_j softmax(f(x' + noise_j))_label with fresh
noise at each step. A sound certificate survives it inside its radius; that it breaks the label somewhat outside shows
that the attack has power.

Reference: Salman et al. (2019), arXiv 1906.04584, section 2.2.
"""

import torch
from torch import Tensor

from scoregen.smoothing.logits import logits_of
from scoregen.smoothing.noise import Gaussian
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier


def attack(
    g: SmoothedClassifier,
    x: Tensor,
    label: int,
    radius: float,
    generator: torch.Generator,
    *,
    draws: int = 64,
    steps: int = 30,
) -> Tensor:
    r"""An input within an l2 radius of x at which the attack finds the label least probable.

    Args:
        g: the smoothed classifier; gradients go through its base classifier.
        x: one input (*S).
        label: that g gives to x, which the attack tries to change.
        radius: of the ball, in x's units.
        generator: of the noise, on x's device.
        draws: noisy copies in each gradient.
        steps: gradient steps, of length 2.5 radius / steps.

    Returns:
        (*S), at a distance of at most the radius.

    Raises:
        TypeError: for noise other than Gaussian, whose certificate is about another ball.
    """
    if not isinstance(g.noise, Gaussian):
        raise TypeError(
            f"noise must be Gaussian, whose certificate is about l2 balls as is this attack, got {g.noise!r}."
        )
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_(True)
        noise = (g.noise.sample(x, draws, generator) - x).to(x.dtype)
        with torch.enable_grad():
            log_probability = logits_of(g.classifier(x + delta + noise)).log_softmax(1)[:, label].logsumexp(0)
            (gradient,) = torch.autograd.grad(-log_probability, delta)
        step = gradient / gradient.norm().clamp_min(torch.finfo(x.dtype).tiny)
        delta = delta.detach() + 2.5 * radius / steps * step
        delta = delta * (radius / delta.norm().clamp_min(radius))
    return x + delta
