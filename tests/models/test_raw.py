r"""The paper's network form: what the network sees, what its output means, and the paper's loss."""

import math

import pytest
import torch
from tiny import compose
from torch import nn

from scoregen.config import build
from scoregen.jobs.picks import fill_model
from scoregen.losses import DenoisingScoreMatching
from scoregen.models import RawDenoiser
from scoregen.rng import generator, randn
from scoregen.samplers import DaleLangevin
from scoregen.sde import EDM, VE, GeometricBrownianMotion, GeometricOU, Multiplicative

SDES = {
    "gbm": GeometricBrownianMotion(0.8, offset=1.0),
    "drifting": GeometricBrownianMotion(lambda t: 0.3 + t, lambda t: 0.2 + t, offset=0.1),
    "standardised": GeometricBrownianMotion(0.8, drift=0.7, offset=1.0, data_range=(0.0, 1.0)),
    "geometric_ou": GeometricOU(mean=0.4, offset=0.5, data_range=(0.0, 1.0)),
    "multiplicative": Multiplicative(VE(0.01, 2.0), offset=0.1, data_range=(0.0, 1.0)),
}


class Network(nn.Module):
    r"""A function of x and t that keeps what it saw."""

    num_classes = 3

    def forward(self, x, t, label=None):
        self.x, self.t = x, t
        return (3 * x).sin() + t[:, None]


def x_t(n=6):
    return torch.linspace(0.05, 2.5, 2 * n, dtype=torch.float64).reshape(n, 2)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())
@pytest.mark.parametrize("prediction", ["stein", "hyvarinen"])
def test_the_network_sees_raw_data_and_gives_the_score(sde, prediction):
    network, t = Network(), torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    offset = sde.chart.inner.offset
    h = RawDenoiser(network, sde, prediction=prediction).hyvarinen_score(x_t(), t)
    torch.testing.assert_close(network.x, x_t() + offset, rtol=1e-7, atol=0)
    torch.testing.assert_close(network.t, t, rtol=1e-7, atol=1e-9)
    output = (3 * (x_t() + offset)).sin() + t[:, None]
    torch.testing.assert_close(h, output * (x_t() + offset) if prediction == "stein" else output, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("data_range", [None, (0.0, 1.0)], ids=["plain", "standardised"])
def test_denoising_with_uniform_time_and_unit_weight_is_the_papers_loss(data_range):
    # E_t v^2 |x s_theta + 1 + (log(x_t/x_0) - m)/v|^2, in units of the chart: a^2 times it
    sde = GeometricBrownianMotion(0.8, drift=0.5, offset=1.0, data_range=data_range)
    x_0 = torch.rand(50, 4, generator=generator(0, 1), dtype=torch.float64)
    quantile = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    loss = build(compose("loss=dale")["loss"])
    assert isinstance(loss, DenoisingScoreMatching)
    loss.label_dropout = 0.0
    values = loss(RawDenoiser(Network(), sde), x_0, generator=generator(0, 2), quantile=quantile)
    eps = randn(x_0.shape, generator(0, 2), torch.float64, x_0.device)
    low = sde.time_of(sde.s_min)
    t = (low + quantile * (1 - low))[:, None]
    v, m = 0.64 * t, (0.5 - 0.32) * t
    x = (1 + x_0) * (m + v.sqrt() * eps).exp()
    target = x * ((3 * x).sin() + t) + 1 + ((x / (1 + x_0)).log() - m) / v
    expected = (v * target).square().mean(1)
    torch.testing.assert_close(values, sde.scale**2 * expected, rtol=1e-6, atol=1e-9)


def test_a_zero_network_is_the_score_of_no_noise():
    # h = 0 claims eps = -sqrt(v): D = u + a v
    class Zero(Network):
        def forward(self, x, t, label=None):
            return torch.zeros_like(x)

    sde = GeometricBrownianMotion(0.8)
    u = torch.linspace(-1, 2, 6)[:, None]
    torch.testing.assert_close(RawDenoiser(Zero(), sde)(u, math.sqrt(0.32)), u + 0.32)


def test_it_samples_in_single_precision_and_carries_its_classes():
    class Pull(Network):
        def forward(self, x, t, label=None):
            return -1 / x - x.log()

    denoiser = RawDenoiser(Pull(), GeometricBrownianMotion(0.8, offset=1.0))
    assert denoiser.num_classes == 3
    x = DaleLangevin(4)(denoiser, (5, 2), generator=generator(0, 3))
    assert x.dtype == torch.float32 and bool((x > -1).all())


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist", "kmnist"])
def test_the_experiments_differ_in_form_and_not_in_budget(data):
    dale, ours, edm = (
        compose(f"+experiment=images/{form}", f"data={data}") for form in ("dale", "multiplicative", "edm")
    )
    assert dale["trainer"] == ours["trainer"] == edm["trainer"]
    network = dale["model"]["network"]
    assert network == ours["model"]["network"] == edm["model"]["network"]
    assert dale["model"]["_target_"] == "scoregen.models.RawDenoiser" and dale["data_moments"] == "pixel"
    assert (dale["sde"]["volatility"], dale["sde"]["offset"], ours["sde"]["offset"]) == (0.8, 1.0, 0.1)

    class Source:
        shape, num_classes = (1, 28, 28), 10

    node = fill_model(dale["model"], Source(), True)
    denoiser = build(node, where="model", sde=build(dale["sde"], where="sde"))
    assert denoiser(torch.zeros(2, 1, 28, 28), 0.5).shape == (2, 1, 28, 28)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: RawDenoiser(Network(), EDM()), TypeError, "RawDenoiser needs a multiplicative process, .* got EDM"),
        (lambda: RawDenoiser(Network(), SDES["gbm"], prediction="stien"), ValueError, "Did you mean 'stein'"),
        (lambda: RawDenoiser(Network(), SDES["gbm"], sigma_data=0.0), ValueError, "sigma_data must be > 0"),
    ],
)
def test_bad_arguments_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()
