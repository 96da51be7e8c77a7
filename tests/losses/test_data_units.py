r"""Errors in data units: the weight they have, and the minimiser they leave alone."""

import pytest
import torch
from torch import nn

from scoregen.losses import DataUnitMatching, DataWeighting, DenoisingScoreMatching, LogUniform
from scoregen.sde import EDM, VP, Affine, Multiplicative

LOG = Multiplicative(EDM(0.1, 0.5), offset=0.02, data_range=(0.0, 1.0))


class Linear(nn.Module):
    r"""D = a u + b, one pair for all levels."""

    def __init__(self, sde, a: float = 0.7, b: float = 0.05) -> None:
        super().__init__()
        self.sde, self.sigma_data, self.num_classes = sde, 0.5, None
        self.a, self.b = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (a, b))

    def forward(self, u, s, label=None):
        return self.a * u + self.b


def data(n: int = 64) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def losses(loss, model, x):
    return loss(model, x, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sde", [EDM(), VP(), LOG], ids=["edm", "vp", "log"])
def test_power_zero_is_plain_score_matching(sde):
    plain, powered = (
        losses(loss, Linear(sde), data()) for loss in (DenoisingScoreMatching(), DataUnitMatching(power=0))
    )
    torch.testing.assert_close(powered, plain)


def test_an_affine_chart_multiplies_by_its_constant():
    model = Linear(EDM(chart=Affine(2.0, -1.0)))
    torch.testing.assert_close(
        losses(DataUnitMatching(), model, data()), losses(DenoisingScoreMatching(), model, data()) / 4
    )


def test_small_errors_count_as_they_do_in_data_units():
    r"""To first order: D = y_0 + e costs (x(D) - x_0)^2, with an error of the order of e."""

    class Near(Linear):
        def forward(self, u, s, label=None):
            return self.sde.to_chart(self.x) + 1e-4 * (self.a * u + self.b)

    model = Near(LOG)
    model.x = data()
    found = losses(DataUnitMatching(LogUniform(), DataWeighting(), high=10.0), model, model.x)
    u = (model(*_noisy(model)) - LOG.to_chart(model.x)).detach()
    exact = (LOG.from_chart(LOG.to_chart(model.x) + u) - model.x).square().flatten(1).mean(1)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=0)


def _noisy(model):
    r"""The (u, s) that the loss draws."""
    seen = []
    handle = model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[:2]))
    losses(DataUnitMatching(LogUniform(), DataWeighting(), high=10.0), model, model.x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_minimiser_is_the_posterior_mean_by_any_power(power):
    r"""On normal y_0 the gradient of the mean loss vanishes at D = E[y_0 | u]: 5 standard errors over 200,000 values.
    The gradient of the factor, or a factor of y_0 in place of D, would be 20 and more of them off."""
    sde, mean, var, s = Multiplicative(EDM(0.002, 1.0), offset=0.0), -0.4, 0.36, 0.5
    gain = var / (var + s**2)
    model = Linear(sde, gain, mean * (1 - gain))
    g = torch.Generator().manual_seed(2)
    x = (mean + var**0.5 * torch.randn(200_000, 1, generator=g, dtype=torch.float64)).exp()

    class Fixed(LogUniform):
        def __call__(self, sde, quantile):
            return torch.full_like(quantile, s)

    values = losses(DataUnitMatching(Fixed(), DataWeighting(), power=power, high=0.5), model, x)
    for parameter in (model.a, model.b):
        gradient = torch.autograd.grad(values.mean(), parameter, retain_graph=True)[0]
        # per-sample gradients are 2 w (D - y) dD, so their deviation bounds the error of the mean
        error = 5 * 2 * values.detach().std() ** 0.5 * 3 / len(x) ** 0.5
        assert abs(gradient.item()) < error.item() / 2


def test_levels_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"power must lie in \[0, 1\], got power=1.5"):
        DataUnitMatching(power=1.5)
