r"""The denoiser of tables against Bayes' rule in closed form; its loss at the truth and with missing cells."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from scoregen.losses import TableScoreMatching
from scoregen.models import Inpainting, PiGDM, TableDenoiser, TableMLP
from scoregen.models.table_conditions import GivenCells
from scoregen.samplers import ExponentialABM
from scoregen.sde import EDM

SHARE = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEAN = torch.tensor([-0.6, 0.4], dtype=torch.float64)
VAR = 0.05


def normal(x, mean, var):
    return -((x - mean) ** 2) / (2 * var) - 0.5 * math.log(2 * math.pi) - 0.5 * torch.as_tensor(var).log()


class Truth(nn.Module):
    r"""The network of a table of one number and two categories, number | c ~ N(MEAN[c], VAR), in closed form."""

    shape, num_classes = (3,), None

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, z, c_noise, label=None):
        s = (4 * c_noise).exp()[:, None]
        u = z * (s**2 + 0.25).sqrt()
        prior = SHARE.log() + normal(u[:, :1], MEAN, VAR + s**2)
        posterior = (prior + u[:, 1:] / s**2).softmax(1)
        number = (posterior * (MEAN + VAR / (VAR + s**2) * (u[:, :1] - MEAN))).sum(1, keepdim=True)
        skip, out = 0.25 / (s**2 + 0.25), s * 0.5 / (s**2 + 0.25).sqrt()
        return torch.cat([(number - skip * u[:, :1]) / out, prior + self.bias], 1)


def truth() -> TableDenoiser:
    return TableDenoiser(Truth(), EDM(0.002, 80.0), 1, [2])


def rows(n: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    c = (torch.rand(n, generator=g) < SHARE[1]).long()
    number = MEAN[c] + math.sqrt(VAR) * torch.randn(n, generator=g, dtype=torch.float64)
    return torch.cat([number[:, None], torch.eye(2, dtype=torch.float64)[c]], 1)


@pytest.mark.parametrize("s", [0.05, 0.5, 5.0])
def test_the_category_is_bayes_posterior(s):
    u = rows(200) + s * torch.randn(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    hot = torch.eye(2, dtype=torch.float64)
    joint = SHARE.log() + normal(u[:, :1], MEAN, VAR + s**2)
    joint = joint + normal(u[:, None, 1:], hot, torch.tensor(s**2, dtype=torch.float64)).sum(-1)
    with torch.no_grad():
        found = truth()(u, torch.tensor(s, dtype=torch.float64))
    torch.testing.assert_close(found[:, 1:], joint.softmax(1), rtol=0, atol=1e-12)


def test_the_gradient_of_the_head_is_zero_at_the_truth():
    model, loss, n = truth(), TableScoreMatching(), 20_000
    loss.begin(model)
    loss(model, rows(n), None, torch.Generator().manual_seed(0)).mean().backward()
    # one draw of the gradient is at most 1 / (2 columns b); five standard errors: 1 false alarm in 10^6
    assert model.network.bias.grad.abs().max() < 5 / (2 * float(loss.first[1])) / math.sqrt(n)
    with torch.no_grad():
        model.network.bias[0] += 0.5  # away from the truth it is not
    model.network.bias.grad = None
    loss(model, rows(n), None, torch.Generator().manual_seed(0)).mean().backward()
    assert model.network.bias.grad.abs().max() > 0.01


def test_every_column_begins_with_the_value_one():
    model = TableDenoiser(TableMLP((8,), width=8, depth=1), EDM(0.002, 80.0), 3, [2, 3])  # its last layer is 0
    g = torch.Generator().manual_seed(0)
    hots = [torch.eye(k)[torch.randint(k, (20_000,), generator=g)] for k in (2, 3)]
    loss = TableScoreMatching()
    loss.begin(model)
    whole = torch.cat([torch.randn(20_000, 3, generator=g) / 2, *hots], 1)
    for kept in (range(3), range(3, 5), range(5, 8)):
        x = torch.full_like(whole, math.nan)
        x[:, list(kept)] = whole[:, list(kept)]
        share = (3 if kept == range(3) else 1) / 5
        assert loss(model, x, None, g).mean().item() == pytest.approx(share, rel=0.05)


def test_categories_and_shares_of_samples_are_those_of_the_law():
    x = ExponentialABM(18)(truth(), (4000, 3), generator=torch.Generator().manual_seed(0))
    share = (x[:, 1:].argmax(1) == 0).double().mean().item()
    assert abs(share - 0.3) < 4 * math.sqrt(0.21 / 4000)  # 6 in 10^5
    for c in range(2):
        chosen = x[x[:, 1:].argmax(1) == c, 0].double()
        assert chosen.mean().item() == pytest.approx(MEAN[c].item(), abs=0.03)
        assert chosen.var().item() == pytest.approx(VAR, rel=0.15)


@pytest.mark.parametrize("s", [0.05, 0.5, 5.0, 50.0])
def test_a_category_that_is_given_leaves_the_law_of_its_rows(s):
    r"""Exactly: E[number | u, c] is that of N(MEAN[c], VAR), whatever the noisy category is."""
    u = rows(200) + s * torch.randn(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    hot = torch.eye(2, dtype=torch.float64)
    for c in range(2):
        known = torch.cat([torch.full((1,), math.nan, dtype=torch.float64), hot[c]])[None]
        found = GivenCells(truth(), known)(u, torch.tensor(s, dtype=torch.float64))
        right = MEAN[c] + VAR / (VAR + s**2) * (u[:, 0] - MEAN[c])
        torch.testing.assert_close(found, torch.cat([right[:, None], hot[c].expand(200, 2)], 1), rtol=0, atol=1e-10)


def test_cells_that_are_lost_at_random_are_imputed_by_the_law_of_the_table():
    r"""Numbers of half of the rows are lost; the table that is filled in has the moments of the complete one."""
    whole, lost = rows(6000), torch.rand(6000, generator=torch.Generator().manual_seed(1)) < 0.5
    known = whole.masked_fill(torch.stack([lost, lost & False, lost & False], 1), math.nan)[lost]
    drawn = ExponentialABM(36)(
        GivenCells(truth(), known), (len(known), 3), generator=torch.Generator().manual_seed(2)
    ).double()
    filled = whole.clone()
    filled[lost] = torch.where(known.isnan(), drawn, known)
    assert torch.equal(filled[:, 1:], whole[:, 1:])
    for c in range(2):
        chosen = filled[filled[:, 1 + c] == 1, 0]
        error = math.sqrt(VAR / len(chosen))
        assert chosen.mean().item() == pytest.approx(MEAN[c].item(), abs=4 * error)  # 6 in 10^5
        assert chosen.var().item() == pytest.approx(VAR, rel=0.1)


def test_numbers_that_are_given_pull_as_pi_gdm():
    known = torch.tensor([[0.3, math.nan, math.nan]], dtype=torch.float64)
    u = rows(5) + 0.5
    other = PiGDM(truth(), Inpainting(known.nan_to_num(0.0), ~known.isnan()))
    torch.testing.assert_close(GivenCells(truth(), known)(u, 0.5), other(u, 0.5))
    both = GivenCells(truth(), torch.tensor([[0.3, 0.0, 1.0]], dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda v: both(v, 0.5), u.requires_grad_())


class Normal(TableDenoiser):
    r"""The denoiser of two normal columns of variance 1/4 and a correlation, in closed form."""

    def __init__(self, rho: float) -> None:
        super().__init__(TableMLP((2,), width=8, depth=1).double(), EDM(0.002, 80.0), 2, [])
        self.covariance = 0.25 * torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)

    def parts(self, u, s, label=None):
        noise = float(torch.as_tensor(s).flatten()[0]) ** 2 * torch.eye(2, dtype=torch.float64)
        return u @ self.covariance @ torch.linalg.inv(self.covariance + noise), []


@pytest.mark.parametrize("rho, mean, deviation", [(0.0, 0.0, 0.5), (0.6, 0.576, 0.404), (0.95, 0.887, 0.188)])
def test_a_number_that_is_given_conditions_another_as_the_docs_say(rho, mean, deviation):
    r"""Given two deviations; right are rho and sqrt(1 - rho^2)/2, which it is without a correlation."""
    known = torch.tensor([[1.0, math.nan]], dtype=torch.float64)
    x = ExponentialABM(100)(GivenCells(Normal(rho), known), (20_000, 2), generator=torch.Generator().manual_seed(0))
    assert x[:, 1].mean().item() == pytest.approx(mean, abs=0.015)
    assert x[:, 1].std().item() == pytest.approx(deviation, abs=0.01)


class Pair(nn.Module):
    r"""The denoiser of two normal columns of variance 1/4 and a correlation, of what is observed of them."""

    sigma_data, num_classes, numbers, sizes = 0.5, None, 2, []

    def __init__(self) -> None:
        super().__init__()
        self.sde, self.rho = EDM(0.002, 80.0), nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def parts(self, u, s, label=None):
        v = 0.25 + s[:, None] ** 2
        alone = 0.25 / v * u  # of rows in which the other column is missing
        cross = 0.25 * self.rho
        det = v**2 - cross**2
        w_own, w_other = (0.25 * v - cross**2) / det, (cross * v - 0.25 * cross) / det
        other = u.flip(1)
        both = w_own * u + w_other * other
        return torch.where(other.isnan(), alone, both), []


def fitted(x: torch.Tensor) -> float:
    model, loss = Pair(), TableScoreMatching()
    loss.begin(model)

    @torch.no_grad()
    def value(rho: float) -> float:
        model.rho.fill_(rho)
        return loss(model, x, None, torch.Generator().manual_seed(0)).mean().item()

    return minimize_scalar(value, bounds=(0.0, 0.99), method="bounded", options={"xatol": 1e-3}).x


def test_values_missing_at_random_do_not_bias_the_law():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 8000, generator=g, dtype=torch.float64)
    x = torch.stack([a, 0.8 * a + 0.6 * b], 1) / 2
    lost = torch.rand(x.shape, generator=g) < 0.3
    assert fitted(x) == pytest.approx(0.8, abs=0.02)
    assert fitted(torch.where(lost, math.nan, x)) == pytest.approx(0.8, abs=0.03)
    assert fitted(torch.where(lost, 0.0, x)) < 0.72  # the mean in their place is no remedy


def test_a_network_is_told_which_coordinates_are_missing():
    torch.manual_seed(0)
    network = TableMLP((3,), width=8, depth=1)
    nn.init.normal_(network.last.weight)
    z, c = torch.zeros(1, 3), torch.zeros(1)
    missing = torch.tensor([[math.nan, 0.0, 0.0]])
    assert network(missing, c).isfinite().all() and not torch.allclose(network(missing, c), network(z, c))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((3, [2]), "must have the .* coordinates of the network"),
        ((1, [1]), "sizes must be a whole number >= 2"),
        ((-1, [2]), "numbers must be a whole number >= 0"),
    ],
)
def test_sizes_that_are_not_the_networks_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        TableDenoiser(TableMLP((3,), width=8, depth=1), EDM(0.002, 80.0), *given)
