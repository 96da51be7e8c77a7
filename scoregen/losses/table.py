r"""Denoising of tables: numbers by the squared error, categories by the cross-entropy, observed cells alone.

    L = E_s (1/columns) ( sum_j w(s) (D_j - y_j)^2 / a  +  sum_c -log softmax(l_c)[y_c] / b_c )

Both have the minimiser E[y_0 | u]: the cross-entropy is a proper score, and its gradient in the logits is the posterior
minus the one-hot. a and b_c are what the terms are of a network that answers 0, for numbers of variance sigma_data^2
and for equally likely categories: then every column begins with the value 1 and none drowns the others.

Reference: Mueller, Gruber, Fok (2023), arXiv 2312.10431; Ouyang et al. (2023), arXiv 2307.00467 (missing values).
"""

from typing import Any

import torch
from torch import Tensor

from scoregen import checks
from scoregen.losses.base import Loss, drop_labels
from scoregen.losses.noise_levels import LogNormal, NoiseLevels, stratified
from scoregen.losses.weightings import EDMWeighting, Weighting
from scoregen.models.table import TableDenoiser
from scoregen.rng import Generators, randn
from scoregen.sde.path import expand

_DRAWS, _NUMBERS = 2**16, 2**22  # of the expectation b_c, at most


class TableScoreMatching(Loss):
    r"""Denoising score matching for rows of numbers and categories, in which cells may be missing (nan).

    Args:
        noise_levels: law of the noise ratio; EDM's log-normal unless given.
        weighting: w(s) of the squared error; EDM's unless given.
        label_dropout: probability of training a sample without its label, for classifier-free guidance.

    Raises:
        ValueError: label_dropout outside [0, 1]. TypeError: in use, a model that is no `TableDenoiser`.

    Reference: Mueller, Gruber, Fok (2023), arXiv 2312.10431.
    """

    first: Tensor

    def __init__(
        self,
        noise_levels: NoiseLevels | None = None,
        weighting: Weighting | None = None,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        checks.inside(0, 1, label_dropout=label_dropout)
        self.noise_levels, self.weighting = noise_levels or LogNormal(), weighting or EDMWeighting()
        self.label_dropout = label_dropout

    def begin(self, model: Any) -> None:
        self.register_buffer("first", self.first_values(_table(model)))

    def first_values(self, model: TableDenoiser) -> Tensor:
        r"""What the terms of the loss are of a network that answers 0: a, then b of each category, float32."""
        quantile = (torch.arange(_DRAWS, dtype=torch.float64) + 0.5) / _DRAWS
        s = self.noise_levels(model.sde, quantile)
        sd2 = model.sigma_data**2
        a = (self.weighting(s, model.sigma_data) * s**2 * sd2 / (s**2 + sd2)).mean().item()
        known = {size: self._cross_entropy(size, s) for size in set(model.sizes)}
        return torch.tensor([a, *(known[size] for size in model.sizes)])

    def _cross_entropy(self, size: int, s: Tensor) -> float:
        s = s[:: max(1, -(-_DRAWS * size // _NUMBERS))]
        draws = torch.Generator().manual_seed(0)
        u = s[:, None] * torch.randn(len(s), size, generator=draws, dtype=torch.float64)
        u[:, 0] += 1
        return -(u / s[:, None] ** 2).log_softmax(1)[:, 0].mean().item()

    def forward(
        self,
        model: Any,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        table = _table(model)
        if not hasattr(self, "first"):
            self.begin(table)
        y = table.sde.to_chart(x_0)
        if quantile is None:
            quantile = stratified(len(y), generator, y.device)
        s = self.noise_levels(table.sde, quantile)
        label = drop_labels(table, label, self.label_dropout, generator)
        u = y + expand(s, y) * randn(y.shape, generator, y.dtype, y.device)
        numbers, logits = table.parts(u, s, label)
        first = self.first.to(y)
        target = y[:, : table.numbers]
        # nan is left out before it is squared, or its gradient would be nan
        error = torch.where(target.isnan(), 0.0, numbers - target).square().sum(1)
        value = self.weighting(s, table.sigma_data).to(error) * error / first[0]
        for k, (part, hot) in enumerate(zip(logits, torch.split(y[:, table.numbers :], table.sizes, 1), strict=True)):
            value = value - (torch.where(hot.isnan(), 0.0, hot) * part.log_softmax(1)).sum(1) / first[k + 1]
        return value / (table.numbers + len(logits))


def _table(model: Any) -> TableDenoiser:
    if not hasattr(model, "parts"):
        raise TypeError(
            f"the model must be a TableDenoiser, got {type(model).__name__}. Choose model=table, or "
            "loss=score_matching."
        )
    found: TableDenoiser = model
    return found
