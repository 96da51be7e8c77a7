r"""Mean and covariance of a stream of feature vectors, mergeable over batches and processes.

    merge of (n, m, S) and (n', m', S'):  m'' = m + d n'/N,  S'' = S + S' + d d^T n n'/N,  d = m' - m,  N = n + n'

with S the centred scatter matrix. Sums of squares are never formed, so nothing cancels when the mean is large.
"""

from typing import Any

import torch
from torch import Tensor

from scoregen.metrics.distances import Features, feature_matrix
from scoregen.parallel import gather


class Moments:
    r"""A streaming accumulator of mean and covariance in float64.

        moments = Moments()
        for batch in batches:
            moments.update(features(batch))
        moments.mean, moments.covariance

    Memory is O(D^2) whatever the number of rows. The result does not depend on how rows are split into batches or
    processes, except for round-off.

    Reference: Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance", equation 2.1.
    """

    def __init__(self) -> None:
        self.count = 0
        self._seen: tuple[Tensor, Tensor] | None = None  # mean (D,) and scatter (D, D)

    @classmethod
    def of(cls, features: Features) -> "Moments":
        r"""The moments of one matrix (N, D)."""
        return cls().update(features)

    def update(self, features: Features) -> "Moments":
        r"""Adds the rows of a matrix (N, D)."""
        x = feature_matrix(features, least=0)
        if len(x):
            mean = x.mean(0)
            centred = x - mean
            self._merge(len(x), mean, centred.T @ centred)
        return self

    def merge(self, other: "Moments") -> "Moments":
        r"""Adds what another accumulator has seen."""
        if other._seen is not None:
            self._merge(other.count, *other._seen)
        return self

    def gather(self) -> "Moments":
        r"""The moments over all processes, in rank order, on every process."""
        total = Moments()
        for state in gather(self.state_dict()):
            total.merge(Moments.from_state_dict(state))
        return total

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if self._seen is None:
            self.count, self._seen = count, (mean.clone(), scatter.clone())
            return
        old_mean, old_scatter = self._seen
        if mean.shape != old_mean.shape:
            raise ValueError(
                f"features must keep their number of columns, got {len(mean)} after {len(old_mean)}. Use one extractor."
            )
        total = self.count + count
        difference = mean.to(old_mean.device) - old_mean
        outer = torch.outer(difference, difference)
        new_scatter = old_scatter + scatter.to(old_mean.device) + outer * (self.count * count / total)
        self.count, self._seen = total, (old_mean + difference * (count / total), new_scatter)

    @property
    def mean(self) -> Tensor:
        r"""The mean (D,)."""
        return self._require(1)[0]

    @property
    def covariance(self) -> Tensor:
        r"""The unbiased covariance (D, D), divisor n - 1."""
        return self._require(2)[1] / (self.count - 1)

    def _require(self, least: int) -> tuple[Tensor, Tensor]:
        if self.count < least or self._seen is None:
            raise ValueError(f"Moments must have seen at least {least} rows, got {self.count}. Call update first.")
        return self._seen

    def state_dict(self) -> dict[str, Any]:
        r"""count, mean and scatter, on the CPU, for a cache or another process."""
        mean, scatter = (None, None) if self._seen is None else (x.cpu() for x in self._seen)
        return {"count": self.count, "mean": mean, "scatter": scatter}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "Moments":
        r"""The accumulator that `state_dict` describes."""
        moments = cls()
        moments.count = int(state["count"])
        moments._seen = None if state["mean"] is None else (state["mean"], state["scatter"])
        return moments
