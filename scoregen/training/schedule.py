r"""Learning-rate factors as pure functions of the step, so that resuming and process counts cannot change them."""

import math
from abc import ABC, abstractmethod

from scoregen.checks import at_least, inside


class Schedule(ABC):
    r"""A factor of the base learning rate.

    Args:
        warmup: steps of linear increase from 0.

    Raises:
        ValueError: warmup < 0.
    """

    def __init__(self, warmup: int = 0) -> None:
        at_least(0, warmup=warmup)
        self.warmup = warmup

    def __call__(self, step: int, steps: int) -> float:
        r"""The factor at step 0 <= step < steps."""
        return min(1.0, (step + 1) / self.warmup) * self.decay(step, steps) if self.warmup else self.decay(step, steps)

    @abstractmethod
    def decay(self, step: int, steps: int) -> float:
        r"""The factor without the warm-up."""


class Constant(Schedule):
    r"""The factor 1 at every step after the warm-up.

    Args:
        warmup: steps of linear increase from 0.
    """

    def decay(self, step: int, steps: int) -> float:
        return 1.0


class Cosine(Schedule):
    r"""Half a cosine from 1 to `final` at the last step.

    Args:
        warmup: steps of linear increase from 0.
        final: factor at the end, in [0, 1].
    """

    def __init__(self, warmup: int = 0, final: float = 0.0) -> None:
        super().__init__(warmup)
        inside(0, 1, final=final)
        self.final = final

    def decay(self, step: int, steps: int) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * step / steps)) / 2


class InverseSqrt(Schedule):
    r"""1 until `reference` steps, then sqrt(reference/step).

    Args:
        warmup: steps of linear increase from 0.
        reference: step at which the decay starts, >= 1.

    Reference: Karras et al. (2024), arXiv 2312.02696, equation 67.
    """

    def __init__(self, warmup: int = 0, reference: int = 10_000) -> None:
        super().__init__(warmup)
        at_least(1, reference=reference)
        self.reference = reference

    def decay(self, step: int, steps: int) -> float:
        return 1 / math.sqrt(max(1.0, step / self.reference))
