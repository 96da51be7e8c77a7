r"""Residuals, and the information of labels, against laws in closed form."""

import math

import pytest
import torch
from oracles import Independent, Mixture
from torch import Tensor

from scoregen.metrics import information, memorisation
from scoregen.metrics.by_level import auroc, residuals
from scoregen.sde import EDM, VP


class TwoClasses(Mixture):
    r"""N(-1, .5^2) with label 0 and N(1, .5^2) with label 1; told the label it knows the class."""

    def __init__(self, sde=None, separation: float = 1.0) -> None:
        means = torch.tensor([[-separation], [separation]], dtype=torch.float64)
        super().__init__(torch.tensor([0.5, 0.5]).double(), means, torch.full((2, 1, 1), 0.25).double(), sde)

    def __call__(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        if label is None:
            return super().__call__(u, s)
        mean = self.means[label]
        return mean + 0.25 / (0.25 + float(s) ** 2) * (u - mean)

    def draw(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(0, 2, (n,), generator=generator)
        return self.means[label] + 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64), label


@pytest.mark.parametrize("sde", [EDM(0.01, 100.0), VP()], ids=["edm", "vp"])
def test_information_of_two_normal_classes(sde):
    law = TwoClasses(sde)
    x, label = law.draw(6_000)
    found = information(law, x, label, levels=48, generator=torch.Generator().manual_seed(1))
    assert found.standard_error < 0.03
    assert abs(found.nats - 0.63272) < 4 * found.standard_error  # quadrature; a false alarm in 16,000
    assert bool((found.loss >= found.loss_with_label - 1e-3).all())
    width = math.log(float(found.s[1] / found.s[0]))
    assert float(found.density.sum()) * width == pytest.approx(found.nats, abs=0.02)


def test_labels_that_tell_nothing_have_no_information():
    law = TwoClasses(separation=0.0)
    x, label = law.draw(500)
    found = information(law, x, label, levels=32, generator=torch.Generator().manual_seed(1))
    assert abs(found.nats) < 1e-9


def test_residuals_are_those_of_the_formula():
    normal = Independent(0.0, 0.25)
    x = torch.randn(600, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = residuals(normal, x, [0.5, 2.0])
    exact = torch.stack([(x * s**2 / (s**2 + 0.25)).square().sum(1) / s**2 for s in (0.5, 2.0)], 1)
    torch.testing.assert_close(found, exact)


def test_auroc_counts_pairs():
    low, high = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0])
    assert float(auroc(low, high)) == pytest.approx((1 + 0.5 + 0 + 3) / 6)


class Empirical:
    r"""D of finitely many points: a model that knows them by heart."""

    def __init__(self, points: Tensor) -> None:
        self.points, self.sde = points, EDM()

    def __call__(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        return (-(torch.cdist(u, self.points) ** 2) / (2 * float(s) ** 2)).softmax(1) @ self.points


def test_points_learnt_by_heart_are_told_from_others():
    points = torch.randn(400, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known, other = (points[:200], None), (points[200:], None)
    learnt = memorisation(Empirical(points[:200]), known, other, [0.3, 0.1])
    assert bool((learnt.auroc == 1).all()) and bool((learnt.training < learnt.held_out).all())
    general = memorisation(Independent(0.0, 1.0), known, other, [0.3, 0.1])
    assert bool(((general.auroc - 0.5).abs() < 4 * math.sqrt(1 / (6 * 200))).all())
    with pytest.raises(ValueError, match="both parts must have points"):
        memorisation(Independent(0.0, 1.0), known, (points[:0], None), [0.1])
