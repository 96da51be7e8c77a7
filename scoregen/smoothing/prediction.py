r"""What g says of one input: a label that is right with probability 1 - alpha, or an abstention."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoregen.checks import one_of
from scoregen.smoothing.certificate import ABSTAIN
from scoregen.smoothing.methods import AbstractMethod, Tally, Vote
from scoregen.smoothing.sequential import SequentialVote

VOTES: dict[str, Callable[[int, float], AbstractMethod]] = {"sequential": SequentialVote, "fixed": Vote}


@dataclass(frozen=True, eq=False)
class Prediction:
    r"""With probability at least 1 - alpha over the noise drawn, label is g(x) or an abstention.

    Attributes:
        label: the class; -1: abstains, the draws do not tell.
        candidate: the class with most votes, also when it abstains.
        counts: (num_classes,) int64, answers in n draws.
        n: draws. alpha: failure probability.
    """

    label: int
    candidate: int
    counts: Tensor
    n: int
    alpha: float

    def record(self) -> dict[str, Any]:
        r"""Plain numbers for a results file."""
        return {"predicted": self.label, "candidate": self.candidate, "n": self.n, "counts": self.counts.tolist()}


def make_vote(name: str, n: int, alpha: float) -> AbstractMethod:
    r"""The rule of a prediction by its public name.

    Args:
        name: "sequential" looks after 32, 64, 128, ... draws; "fixed" after all n (Cohen's PREDICT).
        n: draws for an input (sequential: at most). alpha: failure probability for each input.

    Raises:
        ValueError: an unknown name, or n too small for alpha.
    """
    one_of(VOTES, method=name)
    return VOTES[name](n, alpha)


def decide(tally: Tally, vote: AbstractMethod) -> Prediction:
    r"""The prediction that an input's counts allow."""
    bounds = vote.bounds(tally)
    counts = torch.as_tensor(np.array(tally.counts))
    return Prediction(bounds.candidate if bounds.lower else ABSTAIN, bounds.candidate, counts, tally.drawn, vote.alpha)
