r"""Denoised smoothing: a denoiser in front of a classifier that never saw noise.

Smoothing adds noise sigma to x. A denoiser of smaller images sees the means of k x k pixels, whose noise is sigma/k and
as independent as that of x. In chart coordinates that is u = y_0 + s eps with s = a sigma, where a is the chart's
slope (2 for images in [0, 1] modelled in [-1, 1]). It is the state of the process at the time t with
sigma_t / alpha_t = s, so that a sampler started there gives a clean input. t is solved for exactly, not taken from a
grid.

Reference: Salman et al. (2020), arXiv 2003.01908; Carlini et al. (2022), arXiv 2206.10550.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import positive, whole
from scoregen.keys import Keys
from scoregen.models import DenoiserLike
from scoregen.rng import Stream
from scoregen.sde.process import SDE
from scoregen.smoothing.classifiers import Classify
from scoregen.smoothing.logits import logits_of
from scoregen.smoothing.multiplicative_noise import LogNormal
from scoregen.smoothing.noise import AbstractNoise, Gaussian

_ODD = 0x9E3779B97F4A7C15 - (1 << 64)  # an odd 64-bit multiplier


def chart_slope(sde: SDE) -> float:
    r"""a in y = a x + b, or in y = a log(x + offset) + b: the noise on y for unit noise on x, or on log(x + offset).

    Raises:
        ValueError: for a chart that is neither.
    """
    affine, log = sde.chart.as_affine(), sde.chart.as_log()
    if affine is not None:
        return affine.scale
    if log is not None:
        return log.rate
    raise ValueError(f"the process must have an affine or a log chart, got {type(sde.chart).__name__}.")


def check_chart(noise: AbstractNoise, sde: SDE) -> None:
    r"""Checks that the noise on x is Gaussian noise in the process's chart, which its denoiser removes.

    Raises:
        ValueError: it is not.
    """
    log = sde.chart.as_log()
    if log is None:
        fits, suited = isinstance(noise, Gaussian), "Gaussian noise"
    else:
        given = (noise.offset, noise.drift) if isinstance(noise, LogNormal) else (math.inf, 0.0)
        fits = math.isclose(given[0], log.offset, rel_tol=1e-9) and given[1] == 0.0
        suited = f"log-normal noise with offset={log.offset:.12g} and drift=0"
    if not fits:
        raise ValueError(
            f"noise must be what the denoiser's process adds, {suited}, got {noise!r}. Certify with that noise, or "
            f"with a denoiser of another process."
        )


def fingerprints(x: Tensor) -> Tensor:
    r"""One 64-bit number for each input, from its bits: (B,) int64, on its device."""
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    bits = x.contiguous().view(kind).flatten(1).to(torch.int64)
    weights = torch.arange(1, 2 * bits.shape[1], 2, device=x.device) * _ODD
    mixed = bits * weights
    return (mixed ^ (mixed >> 29)).sum(1)


class PurifiedClassifier(nn.Module):
    r"""f(noisy x) = classifier(sampler(noisy x)): for SmoothedClassifier with the same sigma.

        The sampler starts from u = to_chart(noisy x) at the noise ratio s = a sigma. One step is one-shot denoising,
        E[x_0 | x_t]; a consistency sampler or several steps give sharper inputs for more forward passes.

    The noise of a sampler that draws is keyed by the bits of its input, so that f is a function of its input alone, as
    the certificate requires. It is drawn where the input is.

    Args:
        classifier: (B, *S) in data units -> logits (B, K).
        denoiser: with an `sde` whose data are in the same units.
        sampler: sampler(denoiser, start=(x_t, t), generator=...) -> x.
        sigma: of the smoothing noise: Gaussian(sigma), or LogNormal(sigma, offset) before a log chart of that offset.
        votes: purifications of each noisy input; the majority counts, ties broken by the mean softmax.
        seed: seed of the purification's own noise.
        average: k: the denoiser sees the means of k x k pixels, and its clean image is enlarged again; k > 1 is for
            Gaussian noise on images and an affine chart.

    Raises:
        ValueError: the process never reaches the noise ratio s, its chart is neither affine nor logarithmic, or the
            sampler's images depend on the rest of their batch.
    """

    def __init__(
        self,
        classifier: Classify,
        denoiser: DenoiserLike,
        sampler: Callable[..., Tensor],
        sigma: float,
        *,
        votes: int = 1,
        seed: int = 0,
        average: int = 1,
    ) -> None:
        super().__init__()
        positive(sigma=sigma)
        whole(1, votes=votes, average=average)
        if average > 1 and denoiser.sde.chart.as_affine() is None:
            raise ValueError(f"average must be 1 before a chart that is not affine, got average={average}.")
        if getattr(sampler, "couples_batch", False):
            raise ValueError(
                f"sampler must purify each image by itself, got {type(sampler).__name__}, whose steps depend on the "
                f"whole batch. Use Heun, Consistency or another sampler with a number of steps."
            )
        self.classifier, self.denoiser, self.sampler = classifier, denoiser, sampler
        self.sigma, self.votes, self.seed, self.average = float(sigma), int(votes), seed, int(average)
        self.noise_ratio = self.sigma / self.average * chart_slope(denoiser.sde)
        self.time = float(denoiser.sde.time_of(torch.tensor(self.noise_ratio, dtype=torch.float64)))
        parts = [part for part in (classifier, denoiser) if isinstance(part, nn.Module)]
        self.training = any(part.training for part in parts)

    def extra_repr(self) -> str:
        sampler = f"{type(self.sampler).__name__}(steps={getattr(self.sampler, 'steps', None)})"
        average = f", average={self.average}" if self.average > 1 else ""
        return f"sampler={sampler}, sigma={self.sigma}, votes={self.votes}, seed={self.seed}{average}"

    def purify(self, x: Tensor, vote: int = 0) -> Tensor:
        r"""Noisy inputs (B, *S) to clean ones.

        Args:
            x: data plus noise sigma, in data units.
            vote: number of the purification; those of different numbers are independent.
        """
        sde, size = self.denoiser.sde, tuple(x.shape[2:])
        if self.average > 1:
            if any(side % self.average for side in size):
                raise ValueError(f"x must have sides that {self.average} divides, got {tuple(x.shape)}.")
            x = functional.avg_pool2d(x, self.average)
        x_t = sde.from_u(sde.to_chart(x), self.time)
        keyed = Keys(self.seed, Stream.PURIFY, vote, lambda: fingerprints(x))  # of samplers that draw
        clean = self.sampler(self.denoiser, start=(x_t, self.time), generator=keyed)
        return functional.interpolate(clean, size, mode="bilinear") if self.average > 1 else clean

    def forward(self, x: Tensor) -> Tensor:
        r"""Logits (B, K) of noisy inputs; with several votes the votes for each class plus half the mean softmax."""
        if self.votes == 1:
            return logits_of(self.classifier(self.purify(x)))
        logits = torch.stack([logits_of(self.classifier(self.purify(x, vote))) for vote in range(self.votes)])
        won = functional.one_hot(logits.argmax(2), logits.shape[2]).sum(0)
        return won + 0.5 * logits.softmax(2).mean(0)
