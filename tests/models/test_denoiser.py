r"""Preconditioning and the conversions between what a network may predict, against forms typed here."""

import math

import pytest
import torch
from oracles import Independent
from torch import nn

from scoregen.models import Denoiser
from scoregen.rng import generator
from scoregen.samplers import Heun
from scoregen.sde import EDM, VP, Affine, DiscretePath, GeometricBrownianMotion, RectifiedFlow, SubVP

MEAN, VAR = 0.3, 0.4
LEVELS = torch.tensor([0.002, 0.05, 0.7, 3.0, 80.0], dtype=torch.float64)
SD = 0.6

# c_skip, c_out, and F as a function of (u, D, s): what each prediction means
TABLE = {
    "edm": (
        lambda s: SD**2 / (SD**2 + s**2),
        lambda s: s * SD / math.hypot(s, SD),
        lambda u, d, s: (d - SD**2 / (SD**2 + s**2) * u) * (SD**2 + s**2) ** 0.5 / (s * SD),
    ),
    "x0": (lambda s: 0.0, lambda s: 1.0, lambda u, d, s: d),
    "eps": (lambda s: 1.0, lambda s: -s, lambda u, d, s: (u - d) / s),
    "v": (
        lambda s: 1 / (1 + s * s),
        lambda s: -s / math.hypot(1, s),
        lambda u, d, s: ((u - d) / s - s * d) / (1 + s * s) ** 0.5,
    ),
    "flow": (
        lambda s: 1 / (1 + s),
        lambda s: -s / (1 + s),
        lambda u, d, s: (u - d) / s - d,
    ),
    "consistency": (
        lambda s: SD**2 / ((s - 0.002) ** 2 + SD**2),
        lambda s: (s - 0.002) * SD / math.hypot(s, SD),
        None,  # at the least noise the denoiser is u itself, whatever the network
    ),
}
EXACT = [name for name, row in TABLE.items() if row[2] is not None]


class Constant(torch.nn.Module):
    r"""A network that gives the same value, and keeps what it was asked."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, z, c_noise, label=None):
        self.asked = z, c_noise, label
        return torch.full_like(z, self.value)


class Exact(torch.nn.Module):
    r"""The network that makes a denoiser exact for a normal law: it knows only its inputs."""

    def __init__(self, prediction: str) -> None:
        super().__init__()
        self.target, self.oracle, self.flow = TABLE[prediction][2], Independent(MEAN, VAR), prediction == "flow"

    def forward(self, z, c_noise, label=None):
        s = (4 * c_noise).exp()
        u = z * (1 + s if self.flow else (s**2 + SD**2).sqrt())[:, None]
        return self.target(u, self.oracle(u, s), s[:, None])


def noisy(n: int = 5) -> torch.Tensor:
    draws = torch.randn(n, 3, generator=generator(0, 1), dtype=torch.float64)
    return MEAN + (VAR + LEVELS**2).sqrt()[:, None] * draws


@pytest.mark.parametrize("prediction", TABLE)
def test_coefficients_are_those_of_the_table(prediction):
    skip, out, _ = TABLE[prediction]
    u = noisy()
    for s in LEVELS.tolist():
        one, zero = (Denoiser(Constant(value), EDM(), SD, prediction)(u, s) for value in (1.0, 0.0))
        torch.testing.assert_close(zero, skip(s) * u, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(one - zero, torch.full_like(u, out(s)), rtol=1e-12, atol=1e-13)


def test_the_network_sees_unit_variance_and_a_quarter_of_log_s():
    network = Constant(0.0)
    label = torch.arange(5)
    u = noisy()
    Denoiser(network, EDM(), SD)(u, LEVELS, label)
    z, c_noise, seen = network.asked
    scale = torch.tensor([[math.hypot(s, SD)] for s in LEVELS.tolist()], dtype=u.dtype)
    torch.testing.assert_close(z, u / scale, rtol=1e-12, atol=0)
    torch.testing.assert_close(c_noise, LEVELS.log() / 4, rtol=1e-15, atol=0)
    assert seen is label


@pytest.mark.parametrize("prediction", EXACT)
def test_the_exact_network_gives_the_exact_denoiser(prediction):
    denoiser = Denoiser(Exact(prediction), EDM(), SD, prediction)
    u = noisy()
    torch.testing.assert_close(denoiser(u, LEVELS), Independent(MEAN, VAR)(u, LEVELS), rtol=1e-11, atol=1e-11)


def test_a_flow_network_sees_the_straight_path_and_its_time():
    r"""z_t = (1 - t) y_0 + t eps with t = s/(1 + s), typed here from y_0 and eps."""
    network, s = Constant(0.0), torch.tensor(3.0, dtype=torch.float64)
    y, eps = (torch.randn(4, 3, generator=generator(0, k), dtype=torch.float64) for k in (5, 6))
    Denoiser(network, RectifiedFlow(), prediction="flow", time="flow")(y + s * eps, s)
    z, t, _ = network.asked
    torch.testing.assert_close(t, torch.full((4,), 0.75, dtype=torch.float64))
    torch.testing.assert_close(z, 0.25 * y + 0.75 * eps)


def test_a_network_of_levels_is_told_their_index():
    path = DiscretePath([0.9, 0.5, 0.1])
    network = Constant(0.0)
    Denoiser(network, path, 1.0, "eps", "index")(noisy(), path.noise_ratio(0.5))
    torch.testing.assert_close(network.asked[1], torch.ones(5, dtype=torch.float64))
    with pytest.raises(ValueError, match="time=index needs a DiscretePath, whose levels it counts, got EDM"):
        Denoiser(network, EDM(), time="index")


def test_a_consistency_function_is_the_identity_at_the_least_noise():
    u = noisy()
    found = Denoiser(Constant(7.0), EDM(0.002), SD, "consistency")(u, 0.002)
    torch.testing.assert_close(found, u, rtol=1e-14, atol=0)


def test_levels_below_the_least_that_was_learned_are_told_as_it():
    told = []

    class Network(nn.Module):
        def forward(self, z, condition, label):
            told.append(condition)
            return z

    network = Network()
    denoiser = Denoiser(network, EDM(), SD, least_s=0.3)
    u = torch.ones(3, 2, dtype=torch.float64)
    lower, least = (torch.tensor([first, 0.3, 0.5], dtype=torch.float64) for first in (0.1, 0.3))
    below, at = denoiser(u, lower), denoiser(u, least)
    assert torch.equal(below, at) and torch.equal(told[0], told[1])
    assert denoiser.sde.s_min == Heun(4).grid(denoiser.sde, 4)[-2].item() == 0.3  # where samplers end
    assert Denoiser(network, EDM(), SD, least_s=1e-4).sde.s_min == EDM().s_min
    assert not torch.equal(below[:1], Denoiser(network, EDM(), SD)(u, lower)[:1])
    with pytest.raises(ValueError, match=r"least_s must be >= 0, got least_s=-0.1"):
        Denoiser(network, EDM(), SD, least_s=-0.1)


def test_edm_target_has_unit_variance_when_sigma_data_is_that_of_the_data():
    n = 100_000
    y, eps = (torch.randn(n, generator=generator(0, k), dtype=torch.float64) for k in (2, 3))
    for s in LEVELS.tolist():
        target = TABLE["edm"][2](SD * y + s * eps, SD * y, s)
        assert target.var().item() == pytest.approx(1, abs=5 * math.sqrt(2 / n))  # false alarm 6e-7


def test_one_level_for_the_batch_equals_a_level_a_sample():
    denoiser = Denoiser(Exact("edm"), EDM(), SD)
    u = noisy()
    assert torch.equal(denoiser(u, 0.7), denoiser(u, torch.full((5,), 0.7, dtype=u.dtype)))


PROCESSES = {
    "edm": EDM(chart=Affine(2.0, -1.0)),
    "vp": VP(),
    "subvp": SubVP(),
    "flow": RectifiedFlow(),
    "gbm": GeometricBrownianMotion(volatility=0.8, offset=0.5),
}


def at_time(process, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""y_t of the normal law (in chart coordinates), and the data x_t."""
    total = (process.alpha(t) ** 2 * VAR + process.sigma(t) ** 2).sqrt()[:, None]
    mean = (process.alpha(t) * MEAN + process.shift(t))[:, None]
    y = mean + total * torch.randn(4, 3, generator=generator(0, 4), dtype=torch.float64)
    return y, process.from_chart(y)


@pytest.mark.parametrize("name", PROCESSES)
def test_score_eps_and_v_are_those_of_a_normal_law(name):
    process, t = PROCESSES[name], torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)
    denoiser = Denoiser(Exact("edm"), process, SD)
    y, x = at_time(process, t)
    alpha, sigma, shift = (f(t)[:, None] for f in (process.alpha, process.sigma, process.shift))
    score = -(y - alpha * MEAN - shift) / (alpha**2 * VAR + sigma**2)
    torch.testing.assert_close(denoiser.score(x, t), score, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(denoiser.eps(x, t), -sigma * score, rtol=1e-8, atol=1e-9)
    denoised = (y - shift + sigma**2 * score) / alpha
    v = (alpha * -sigma * score - sigma * denoised) / (alpha**2 + sigma**2).sqrt()
    torch.testing.assert_close(denoiser.v(x, t), v, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_conversions_round_trip(name):
    r"""D from score, eps and v again, to rounding: 2e-15 of the size of u, which they are differences of."""
    process, t = PROCESSES[name], torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)
    denoiser = Denoiser(Exact("edm"), process, SD)
    _, x = at_time(process, t)
    denoised, u = denoiser.denoised(x, t)
    s, alpha, sigma = (f(t)[:, None] for f in (process.noise_ratio, process.alpha, process.sigma))
    size = u.abs() + 1
    backs = {
        "eps": u - s * denoiser.eps(x, t),
        "score": u + s * sigma * denoiser.score(x, t),
        "v": (u - s * (1 + s**2).sqrt() * denoiser.v(x, t)) / (1 + s**2),
        "alpha": u + (sigma / alpha) * sigma * denoiser.score(x, t),
    }
    for kind, back in backs.items():
        assert bool(((back - denoised).abs() <= 2e-15 * size).all()), kind


def test_hyvarinen_score_is_x_times_the_score_of_a_log_normal_law():
    r"""For log(x + c) ~ N(m, w): (x + c) grad_x log p = -(log(x + c) - m)/w - 1."""
    process, t = PROCESSES["gbm"], torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)
    y, x = at_time(process, t)
    slope = ((x + 0.5).log() - (process.from_chart(torch.zeros_like(y)) + 0.5).log()) / y  # log(x + c) = slope y + base
    base = (process.from_chart(torch.zeros_like(y)) + 0.5).log()
    mean = base + slope * (process.alpha(t) * MEAN + process.shift(t))[:, None]
    var = slope**2 * (process.alpha(t) ** 2 * VAR + process.sigma(t) ** 2)[:, None]
    exact = -((x + 0.5).log() - mean) / var - 1
    found = Denoiser(Exact("edm"), process, SD).hyvarinen_score(x, t)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)


def test_hyvarinen_score_is_refused_for_an_additive_process():
    with pytest.raises(TypeError, match="needs a multiplicative process"):
        Denoiser(Exact("edm"), EDM(), SD).hyvarinen_score(torch.ones(4, 3, dtype=torch.float64), 0.5)


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, math.nan, math.inf])
def test_sigma_data_out_of_range_is_refused(sigma_data):
    with pytest.raises(ValueError, match=f"sigma_data must be > 0 and finite, got sigma_data={sigma_data}"):
        Denoiser(Constant(0.0), EDM(), sigma_data)


def test_an_unknown_prediction_offers_the_nearest():
    rule = "prediction must be edm, x0, eps, v, flow or consistency"
    with pytest.raises(ValueError, match=rule + r", got prediction='epsilon'. Did you mean 'eps'\?"):
        Denoiser(Constant(0.0), EDM(), prediction="epsilon")
    with pytest.raises(ValueError, match="time must be log, index or flow, got time='indx'"):
        Denoiser(Constant(0.0), EDM(), time="indx")


class Types(torch.nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, z, c_noise, label=None):
        self.seen = z.dtype, c_noise.dtype
        return z * self.weight


@pytest.mark.parametrize("data", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_network_works_in_its_own_type_and_knows_the_noise_in_float32_at_least(dtype, data):
    network = Types(dtype)
    assert Denoiser(network, EDM())(torch.ones(2, 3, dtype=data), 1.0).dtype == data
    assert network.seen == (dtype, torch.promote_types(dtype, torch.float32))


def test_without_noise_there_is_no_score():
    denoiser = Denoiser(Types(torch.float32), RectifiedFlow())
    with pytest.raises(ValueError, match="t must be > 0 for RectifiedFlow"):
        denoiser.score(torch.ones(2, 3), 0.0)
