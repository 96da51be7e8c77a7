r"""Posterior samples under the exact law of what was recorded, by split Gibbs sampling.

A second variable z stands between the scene y and the observation, coupled to y by N(z; y, rho^2). Two draws in turn,

    z ~ p(observed | z) N(z; y, rho^2)      one number a pixel, exact (`PixelObservation`)
    y ~ p(y) N(z; y, rho^2)                 what a sampler draws that starts from z at the noise ratio rho

leave p(y) p(observed | z) N(z; y, rho^2) as it is. The law of y in it is the posterior for an observation blurred by
rho: its error falls with rho^2. The chain mixes in about (deviation / rho)^2 rounds, so that rho starts large and is
lowered; the slower, the better.

Nothing is taken for normal: the skewness of speckle, counts, values rounded to zero and cut at the top, missing pixels.

Reference: Wu, Sun, Chen, Zhang, Yue, Bouman (2024), arXiv 2405.18782, algorithm 1; Vono, Dobigeon, Chainais (2019),
IEEE Trans. Signal Processing 67, for split Gibbs samplers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from scoregen.checks import positive, whole
from scoregen.models.protocol import DenoiserLike
from scoregen.parallel import moved
from scoregen.progress import progress as progress_bar
from scoregen.rng import Generators, rand, randn
from scoregen.samplers.base import Bound, CountingZeroDenoiser, Sampler, check_suits
from scoregen.samplers.dale_langevin import DaleLangevin
from scoregen.samplers.grids import Karras, check_ratios
from scoregen.samplers.pixel_axis import LogAxis
from scoregen.samplers.pixel_observation import PixelObservation
from scoregen.samplers.start import check_generators, check_label, check_learned, state_options
from scoregen.sde.path import readable
from scoregen.sde.process import SDE

Callback = Callable[[int, float, Tensor, Tensor], None]


class SplitGibbs:
    r"""Draws scenes that a denoiser holds likely and that the recorded values leave possible.

    Args:
        observation: the law of what was recorded.
        sampler: a stochastic one, for y given z; DaleLangevin(4) on equal steps of s unless given.
        rounds: pairs of draws, >= 2; a round takes the network calls of the sampler.
        rho_max, rho_min: coupling in chart coordinates (where images have a deviation of about .5) of the first round
            and of the last half; in between it falls in equal factors. rho_min adds to the noise of the observation:
            take a fifth of that, or less.

    Raises:
        ValueError: rounds < 2, or not 0 < rho_min <= rho_max. TypeError: a sampler without noise.
    """

    def __init__(
        self,
        observation: PixelObservation,
        sampler: Sampler | None = None,
        rounds: int = 40,
        rho_max: float = 1.0,
        rho_min: float = 0.05,
    ) -> None:
        whole(2, rounds=rounds)
        positive(rho_max=rho_max, rho_min=rho_min)
        if rho_min > rho_max:
            raise ValueError(f"rho_min must be at most rho_max, got rho_min={rho_min}, rho_max={rho_max}.")
        self.observation, self.rounds = observation, int(rounds)
        self.sampler = DaleLangevin(4, Karras(rho=1.0)) if sampler is None else sampler
        self.rho_max, self.rho_min = float(rho_max), float(rho_min)

    def levels(self) -> list[float]:
        r"""rho of every round."""
        falling = max(1, self.rounds // 2)
        factor = (self.rho_min / self.rho_max) ** (1 / falling)
        return [max(self.rho_max * factor**k, self.rho_min) for k in range(self.rounds)]

    def __call__(
        self,
        denoiser: DenoiserLike,
        observed: Tensor,
        *,
        label: Tensor | None = None,
        generator: Generators = None,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        r"""One scene for each observation.

        Args:
            denoiser: D(u, s) of a process of pixels.
            observed: what was recorded (B, *S), in the units of the data; NaN where a pixel is missing. A look at its
                range waits for no device where it is on the CPU.
            label: (B,) integers.
            generator: one, or a list with one an image: then an image does not depend on the batch.
            progress: shows a bar on a terminal.
            callback: called as callback(round, rho, y, z) after every round, in chart coordinates.

        Returns:
            Data (B, *S), in their own units, on the denoiser's device.

        Raises:
            ValueError: values that the observation cannot give, or a rho outside the range of the process.
            TypeError: a chart of other than pixels.
        """
        axis = LogAxis.of(denoiser.sde, type(self).__name__)
        self._check(denoiser, observed, label, generator)
        options = state_options(denoiser)
        observed = moved(observed.to(options["dtype"]), options["device"])
        missing = observed.isnan()
        observed = torch.where(missing, self.observation.possible, observed)
        bound = Bound(denoiser, None if label is None else moved(label, observed.device))
        with torch.no_grad():
            y = z = torch.where(missing, 0.0, axis.of_x(self.observation.first(observed)))
            bar = progress_bar(self.levels(), description="sampling", unit="round") if progress else self.levels()
            for k, rho in enumerate(bar):
                z = self.observation.draw(observed, z, y, rho, axis, lambda like: _rand(like, generator))
                z = torch.where(missing, y + rho * _randn(y, generator), z)
                grid = self.sampler.grid(denoiser.sde, self.sampler.steps, rho)
                y = self.sampler.integrate(bound, z, grid, lambda like: _randn(like, generator))
                if callback is not None:
                    callback(k, rho, y, z)
            possible = self.observation.confine(observed, y, self.rho_min, axis, lambda like: _rand(like, generator))
            return denoiser.sde.from_chart(torch.where(missing, y, possible))

    def mean(
        self,
        denoiser: DenoiserLike,
        observed: Tensor,
        samples: int = 16,
        *,
        label: Tensor | None = None,
        generator: Generators = None,
        callback: Callback | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Mean and standard deviation of independent draws, each (B, *S); arguments as those of a call.

        Args:
            samples: >= 2; each takes all rounds.
        """
        whole(2, samples=samples)
        mean = self(denoiser, observed, label=label, generator=generator, callback=callback)
        squares = torch.zeros_like(mean)
        for k in range(1, int(samples)):
            x = self(denoiser, observed, label=label, generator=generator, callback=callback)
            step = x - mean
            mean = mean + step / (k + 1)
            squares += step * (x - mean)
        return mean, (squares / (samples - 1)).sqrt()

    def check(self, denoiser: DenoiserLike) -> None:
        r"""Refuses a denoiser on which the chain cannot run.

        Raises:
            ValueError: a rho outside the range of the process or below what the denoiser learned, a sampler without
                noise. TypeError: a chart of other
                than pixels.
        """
        LogAxis.of(denoiser.sde, type(self).__name__)
        check_suits(self.sampler, denoiser)
        check_learned(denoiser, self.rho_min)
        check_ratios(denoiser.sde, (self.rho_min, self.rho_max), "rho_min and rho_max")
        check_draws(self.sampler, denoiser.sde, self.rho_max)

    def _check(self, denoiser: DenoiserLike, observed: Tensor, label: Tensor | None, generator: Generators) -> None:
        self.check(denoiser)
        check_generators(generator, len(observed))
        check_label(denoiser, label, len(observed))
        if readable(observed):
            self.observation.check(observed)


def check_draws(sampler: Sampler, sde: SDE, s: float) -> None:
    r"""Refuses a sampler that draws no noise from a start, by a run on one pixel with a denoiser that costs nothing.

    Raises:
        ValueError: it draws none.
    """
    drawn = []

    def noise(like: Tensor) -> Tensor:
        drawn.append(like)
        return torch.zeros_like(like)

    u = torch.zeros(1, 1, device="cpu")
    sampler.integrate(Bound(CountingZeroDenoiser(sde), None), u, sampler.grid(sde, sampler.steps, s), noise)
    if not drawn:
        raise ValueError(
            f"the sampler must be stochastic, since it draws scenes and not the likeliest one, got "
            f"{type(sampler).__name__}, which draws no noise from a given start. Use DaleLangevin (sampler=despeckle)."
        )


def _rand(like: Tensor, generator: Generators) -> Tensor:
    return rand(like.shape, generator, like.dtype, like.device)


def _randn(like: Tensor, generator: Generators) -> Tensor:
    return randn(like.shape, generator, like.dtype, like.device)
