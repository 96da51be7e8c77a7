r"""One probable point that fits an observation, and maps of what a prior says of each value.

    x <- argmin |z - A x|^2/(2 noise^2) + weight w(s) |y - D(y, s)|^2/2
       =  D + v A' (noise^2 I + v A A')^{-1} (z - A D),    v = 1/(weight w(s)) = s^2/weight for the score

so every `Observation` gives the linear step. The stationary points are those of gradient descent on the same problem.
For normal data N(m, S), weight 1, it is the posterior mean of N(m, S + s^2 I): anneal s to the least level.

Reference: Romano, Elad, Milanfar (2017), arXiv 1611.02862; Reehorst & Schniter (2019), arXiv 1806.02296.
"""

import math
import warnings

import torch
from torch import Tensor

from scoregen import checks
from scoregen.losses.noise_levels import NoiseLevels
from scoregen.models import Observation
from scoregen.priors.levels import ratios
from scoregen.priors.score_prior import ScorePrior
from scoregen.rng import Generators

_FAR = 5.0  # |y - D|/(s sqrt n) from which on x is outside what D was trained on
EXPECTED = math.sqrt(2 / math.pi)  # E|eps|, the residual of a value that the prior expects and pins


def fixed_point(
    prior: ScorePrior,
    observation: Observation,
    x: Tensor,
    *,
    steps: int = 30,
    weight: float = 1.0,
    generator: Generators = None,
) -> Tensor:
    r"""Walks from x to a point that the prior finds probable and that fits an observation (RED by fixed points).

        Start near the answer, such as at `GaussianDenoiser.posterior_mean`, and anneal from about the error that is
        left: from far away it stops in a poor mode. It minimises no squared error; the posterior mean does.

    Args:
        prior: its levels may be `Annealed`; they are not a law.
        observation: z = A x + noise, in data units.
        x: the start (B, *S), in data units.
        steps: of the walk, a denoiser call for each level and draw. weight: of the prior, > 0; 1 is Bayes' rule.
        generator: for a prior with draws.

    Returns:
        (B, *S), in data units.

    Raises:
        ValueError: a prior with a transform or with a law of levels.

    Warns:
        UserWarning: x is far from the data at the first level.
    """
    checks.whole(1, steps=steps)
    checks.positive(weight=weight)
    prior.refuse_transform()
    if isinstance(prior.levels, NoiseLevels):
        raise ValueError("levels must be numbers or Annealed for fixed_point, got a law. Use gradient, or loss.")
    sde = prior.denoiser.sde
    y = sde.to_chart(x.detach())
    for step in range(steps):
        now = prior.at(step, steps)
        target, strength = now.target(y, generator)
        if step == 0 and not isinstance(now.levels, NoiseLevels):
            _warn_if_far(y, target, max(ratios(now.levels)))
        variance = 1 / (weight * float(strength))
        y = target + variance * observation.pull(target, variance, sde)
    return sde.from_chart(y)


def residual_mask(prior: ScorePrior, x: Tensor, s: float, draws: int = 200, generator: Generators = None) -> Tensor:
    r"""DiffuMatch's weights of a ridge regression: sqrt(m) - min sqrt(m), m = E|u - D(u, s)|/(2 s E|u|).

        u = y + s eps; all elementwise. They are large where the prior is tight, so that noise in the observation is not
        followed there. The least of each sample is 0.

    Args:
        prior: as in `ScorePrior.residual`. x: (B, *S). s: noise ratio. draws: number of draws of noise.

    Returns:
        (B, *S), >= 0.

    Reference: Pierson et al. (2025), arXiv 2507.23715.
    """
    with torch.no_grad():
        y = prior.in_chart(x)
    folded = EXPECTED * s * (-(y**2) / (2 * s**2)).exp() + y * torch.erf(y / (math.sqrt(2) * s))  # E|u|
    root = (prior.residual(x, s, draws, generator) / (2 * folded)).sqrt()
    return root - root.flatten(1).amin(1).reshape(-1, *[1] * (x.ndim - 1))


def reliability(prior: ScorePrior, x: Tensor, s: float, draws: int = 200, generator: Generators = None) -> Tensor:
    r"""min(1, sqrt(2/pi) s/E|u - D(u, s)|) of each value: near 0 where the prior contradicts x.

        1 says that the prior has nothing against a value; it does not say that the value is right.

    Args:
        prior: as in `ScorePrior.residual`. x: (B, *S). s: noise ratio. draws: number of draws of noise.

    Returns:
        (B, *S), in (0, 1].
    """
    residual = prior.residual(x, s, draws, generator)
    return (EXPECTED / residual.clamp_min(torch.finfo(residual.dtype).tiny)).clamp_max(1.0)


def _warn_if_far(y: Tensor, target: Tensor, s: float) -> None:
    ratio = float((y - target).square().flatten(1).mean(1).amax().sqrt()) / s
    if ratio > _FAR:
        warnings.warn(
            f"x is {ratio:.1f} times as far from D as noise of the first level, s={s:.3g}, would put it: outside what "
            "a network is trained on. Start at a larger level, or nearer: GaussianDenoiser.posterior_mean.",
            stacklevel=3,
        )
