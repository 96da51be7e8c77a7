r"""What the guard's questions cost, in forward passes."""

import pytest
import torch
from torch import nn

from scoregen.smoothing import Gaussian, SmoothedClassifier


class Counted(nn.Module):
    r"""The sign of the mean, and how many rows were asked."""

    rows = 0

    def forward(self, x):
        self.rows += len(x)
        mean = x.mean(1)
        return torch.stack((mean, -mean), 1)


@pytest.mark.parametrize(("inputs", "most"), [(1, 0.08), (8, 0.03)])
def test_the_guard_adds_few_passes_to_ten_thousand_draws(inputs, most):
    classifier, n, n0 = Counted().eval(), 10_000, 100
    x = torch.linspace(-1, 1, inputs + 1)[1:, None].expand(inputs, 4)
    g = SmoothedClassifier(classifier, Gaussian(0.5), 2, batch_size=128)
    g.certify(x, n=n, n0=n0, method="fixed", generator=torch.Generator())
    assert 1 < classifier.rows / (inputs * (n + n0)) < 1 + most
