r"""Mean and covariance of a stream of feature vectors, mergeable over batches and processes.

    merge of (n, m, S) and (n', m', S'):  m'' = m + d n'/N,  S'' = S + S' + d d^T n n'/N,  d = m' - m,  N = n + n'

with S the centred scatter matrix. Sums of squares are never formed, so nothing cancels when the mean is large.
"""

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

    def __init__(self):
        self.count = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None

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
        if other.count:
            self._merge(other.count, other._mean, other._scatter)
        return self

    def gather(self) -> "Moments":
        r"""The moments over all processes, in rank order, on every process."""
        total = Moments()
        for state in gather(self.state_dict()):
            total.merge(Moments.from_state_dict(state))
        return total

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if self._mean is None:
            self.count, self._mean, self._scatter = count, mean.clone(), scatter.clone()
            return
        if mean.shape != self._mean.shape:
            raise ValueError(
                f"features must keep their number of columns, got {len(mean)} after {len(self._mean)}; "
                "use one extractor."
            )
        total = self.count + count
        difference = mean.to(self._mean.device) - self._mean
        outer = torch.outer(difference, difference)
        self._scatter = self._scatter + scatter.to(self._mean.device) + outer * (self.count * count / total)
        self._mean = self._mean + difference * (count / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        r"""The mean (D,)."""
        self._require(1)
        return torch.as_tensor(self._mean)

    @property
    def covariance(self) -> Tensor:
        r"""The unbiased covariance (D, D), divisor n - 1."""
        self._require(2)
        return self._scatter / (self.count - 1)

    def _require(self, least: int) -> None:
        if self.count < least:
            raise ValueError(f"Moments must have seen at least {least} rows, got {self.count}; call update first.")

    def state_dict(self) -> dict:
        r"""count, mean and scatter, on the CPU, for a cache or another process."""
        tensors = {"mean": self._mean, "scatter": self._scatter}
        return {"count": self.count} | {k: v if v is None else v.cpu() for k, v in tensors.items()}

    @classmethod
    def from_state_dict(cls, state: dict) -> "Moments":
        r"""The accumulator that `state_dict` describes."""
        moments = cls()
        moments.count, moments._mean, moments._scatter = int(state["count"]), state["mean"], state["scatter"]
        return moments
