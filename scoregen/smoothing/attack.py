r"""An attack on the smoothed classifier, to check certificates by trying to break them.

Projected gradient descent on x' within a ball of the certificate's own distance, on the loss -log mean_j softmax(f(x'
with noise j))_label with fresh noise at each step: the gradient is that of the smoothed classifier. A sound certificate
survives it inside its radius; that it breaks the label somewhat outside shows that the attack has power.

It moves z, the coordinates in which the distance is the l1 or l2 norm: pixels, their logarithms, pixels over sigma, or
the logarithm of one gain. In l2 a step follows the gradient; in l1 it goes along the few largest entries of it.

Reference: Salman et al. (2019), arXiv 1906.04584, section 2.2; Tramer, Boneh (2019), arXiv 1904.13000 (steps in l1);
Duchi et al. (2008), "Efficient projections onto the l1-ball".
"""

import torch
from torch import Tensor
from torch.nn import functional

from scoregen.smoothing.engine import placed, rounded
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier

DRAWS, STEPS = 64, 30
_LENGTH = 2.5  # of all steps together, in radii
_SHARE = 0.02  # of the entries of z that a step in l1 changes


def check_attackable(noise: AbstractNoise) -> None:
    r"""Refuses a noise whose distance the attack does not know.

    Raises:
        TypeError: it is one.
    """
    if noise.order not in (1, 2):
        raise TypeError(
            f"noise must have a distance that the attack serves, an l1 or l2 norm of `displaced`, got {noise!r} with "
            f"order={noise.order}. Leave the attack out, or state `order` in its class."
        )


def attack(
    g: SmoothedClassifier,
    x: Tensor,
    label: int,
    radius: float,
    generator: torch.Generator,
    *,
    draws: int = DRAWS,
    steps: int = STEPS,
) -> Tensor:
    r"""An input within a radius of x, in the certificate's distance, at which the label is least probable so far.

    Args:
        g: the smoothed classifier; gradients go through its base classifier.
        x: one input (*S).
        label: that g gives to x, which the attack tries to change.
        radius: of the ball, in the noise's distance.
        generator: of the noise.
        draws: noisy copies in each gradient.
        steps: gradient steps, of length 2.5 radius / steps.

    Returns:
        (*S), at a distance of at most the radius (up to the rounding of x's type).

    Raises:
        TypeError: for a noise whose distance is not served.
        ValueError: the classifier gives no gradient.
    """
    check_attackable(g.noise)
    z = g.noise.displacement(x)
    for _ in range(steps):
        z.requires_grad_(True)
        with torch.enable_grad():
            loss = _loss(g, g.noise.displaced(x, z), label, draws, generator)
            (gradient,) = torch.autograd.grad(loss, z)
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)  # a power of a zero pixel
        z = _projected(
            z.detach() + _LENGTH * radius / steps * _direction(gradient, g.noise.order), radius, g.noise.order
        )
    return g.noise.displaced(x, z).detach()


def _loss(g: SmoothedClassifier, x: Tensor, label: int, draws: int, generator: torch.Generator) -> Tensor:
    r"""The logarithm of the label's mean probability, with its gradient."""
    engine = g.examine([(0, x.detach())]).engine
    device, dtype = placed(g.classifier, x)
    noisy = rounded(g.noise.sample(x.to(generator.device), draws, generator), dtype).to(device)
    logits = engine.logits(noisy)
    if not logits.requires_grad:
        raise ValueError(
            "classifier must have a gradient for an attack, got logits without one, as behind a sampler or a program "
            "that keeps none. Leave the attack out."
        )
    return -logits.float().log_softmax(1)[:, label].logsumexp(0)


def _direction(gradient: Tensor, order: int | None) -> Tensor:
    r"""Of length 1 in the norm: where the loss grows most, in l1 spread over the largest entries."""
    if order == 2:
        return functional.normalize(gradient.flatten(), dim=0).view_as(gradient)
    flat = gradient.flatten()
    top = flat.abs().topk(max(1, round(_SHARE * flat.numel()))).indices
    step = torch.zeros_like(flat)
    step[top] = flat[top].sign() / len(top)
    return step.view_as(gradient)


def _projected(z: Tensor, radius: float, order: int | None) -> Tensor:
    r"""The nearest point (in l2) of the ball of a radius, in l2 or l1."""
    if order == 2:
        length = float(z.norm())
        return z if length <= radius else z * (radius / length)
    size = z.abs().flatten()
    if float(size.sum()) <= radius:
        return z
    ordered = size.sort(descending=True).values
    surplus = (ordered.cumsum(0) - radius) / torch.arange(1, len(size) + 1, device=z.device)
    threshold = surplus[(ordered > surplus).nonzero().max()]
    return z.sign() * (z.abs() - threshold).clamp_min(0.0)
