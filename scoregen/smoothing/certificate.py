r"""What is proved about one input."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoregen.smoothing.bounds import round_down
from scoregen.smoothing.methods import AbstractMethod, Tally
from scoregen.smoothing.noise import AbstractNoise

ABSTAIN = -1


@dataclass(frozen=True, eq=False)
class Certificate:
    r"""With probability at least 1 - alpha over the noise drawn, g(x') = label for all x' closer than radius to x.

    g is the smoothed classifier, not the classifier. Closer is strict, in the distance `norm`.

    Attributes:
        label: the certified class; -1: abstains, nothing is proved.
        radius: 0 when it abstains.
        norm: the distance that the radius is measured in.
        p_lower: lower bound of the probability of `candidate`.
        p_upper: upper bound of every other class's.
        counts: (num_classes,) int64, answers in the n draws that the bounds are made of.
        n: those draws (for a sequential method: used, not allowed).
        alpha: failure probability.
        candidate: the class that was bounded, also when it abstains.
        selection: (num_classes,) int64 counts that chose the candidate; None when the same draws did.
        path: (draws, count of the candidate) at each look, and the runner-up's count where it was bounded.
        selector: of `DualSmoothing`, the certificate of the choice; None elsewhere. Both parts are then at alpha / 2,
            the radius is the smaller of theirs, and all else is about the classifier that was chosen.
    """

    label: int
    radius: float
    norm: str
    p_lower: float
    p_upper: float
    counts: Tensor
    n: int
    alpha: float
    candidate: int
    selection: Tensor | None = None
    path: tuple[tuple[int, ...], ...] = field(default=())
    selector: "Certificate | None" = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.record() == other.record() and self.radius == other.radius

    def __hash__(self) -> int:
        return hash((self.label, self.radius, self.n))

    @property
    def draws(self) -> int:
        r"""All forward passes spent on the input."""
        own = self.n + (int(self.selection.sum()) if self.selection is not None else 0)
        return own + (self.selector.draws if self.selector is not None else 0)

    def record(self) -> dict[str, Any]:
        r"""Plain numbers for a results file; the radius rounded down."""
        return {
            "predicted": self.label,
            "radius": round_down(self.radius),
            "p_lower": self.p_lower,
            "p_upper": self.p_upper,
            "candidate": self.candidate,
            "n": self.n,
            "draws": self.draws,
            "counts": self.counts.tolist(),
            "selection": None if self.selection is None else self.selection.tolist(),
            "path": [list(look) for look in self.path],
        } | ({} if self.selector is None else {"selector": self.selector.record()})


def conclude(tally: Tally, method: AbstractMethod, noise: AbstractNoise) -> Certificate:
    r"""The certificate that an input's counts prove."""
    bounds = method.bounds(tally)
    radius = noise.radius(bounds.lower, bounds.upper)
    return Certificate(
        label=bounds.candidate if radius > 0.0 else ABSTAIN,
        radius=radius,
        norm=noise.norm,
        p_lower=bounds.lower,
        p_upper=bounds.upper,
        counts=torch.as_tensor(np.array(tally.counts)),
        n=tally.drawn,
        alpha=method.alpha,
        candidate=bounds.candidate,
        selection=None if tally.selection is None else torch.as_tensor(np.array(tally.selection)),
        path=method.path(tally),
    )
