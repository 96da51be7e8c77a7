r"""The additive processes against their textbook forms; their SDEs and inverses are in tests/laws."""

import math

import pytest
import torch
from oracles import Independent

from scoregen.samplers import ExponentialABM
from scoregen.sde import EDM, VE, VP, Cosine, Multiplicative, RectifiedFlow, SubVP

T = torch.linspace(0.01, 0.98, 37, dtype=torch.float64)


def vp(t):
    integral = 0.1 * t + 9.95 * t**2
    return torch.exp(-integral / 2), torch.sqrt(1 - torch.exp(-integral))


def sub_vp(t):
    integral = 0.1 * t + 9.95 * t**2
    return torch.exp(-integral / 2), 1 - torch.exp(-integral)


def ve(t):
    return torch.ones_like(t), 0.01 * 5000.0**t


def edm(t):
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    return torch.ones_like(t), (low + t * (high - low)) ** 7


def cosine(t):
    return torch.cos(math.pi * t / 2), torch.sin(math.pi * t / 2)


def rectified(t):
    return 1 - t, t


def shifted(t):
    later = 3 * t / (1 + 2 * t)
    return 1 - later, later


PROCESSES = [(VP(), vp), (SubVP(), sub_vp), (VE(), ve), (EDM(), edm), (Cosine(), cosine), (RectifiedFlow(), rectified)]
PROCESSES += [(RectifiedFlow(shift=3.0), shifted)]
pairs = pytest.mark.parametrize(("sde", "textbook"), PROCESSES, ids=lambda p: getattr(p, "__name__", ""))
each = pytest.mark.parametrize("sde", [p for p, _ in PROCESSES], ids=lambda p: type(p).__name__)


@pairs
def test_paths_are_the_textbook_ones(sde, textbook):
    alpha, sigma = textbook(T)
    torch.testing.assert_close(sde.alpha(T), alpha, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(sde.sigma(T), sigma, rtol=1e-12, atol=1e-14)
    assert not sde.shift(T).any()


@each
def test_noise_ratio_is_that_of_the_table(sde):
    integral = 0.1 * T + 9.95 * T**2
    table = {
        "VP": (integral.exp() - 1).sqrt(),
        "SubVP": 2 * (integral / 2).sinh(),
        "Cosine": (math.pi * T / 2).tan(),
        "RectifiedFlow": getattr(sde, "shift_factor", 1.0) * T / (1 - T),
    }
    expected = table.get(type(sde).__name__, sde.sigma(T))
    torch.testing.assert_close(sde.noise_ratio(T), expected, rtol=1e-11, atol=1e-14)


def test_a_noise_ratio_outside_the_range_is_an_error():
    with pytest.raises(ValueError, match=r"s must lie between noise_ratio\(0\)=0.002 and noise_ratio\(1\)=80 of EDM"):
        EDM().time_of(100.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VP(2.0, 1.0), "beta_max must be >= 2, got beta_max=1.0"),
        (lambda: VE(2.0, 1.0), "0 < sigma_min < sigma_max < inf, got sigma_min=2.0, sigma_max=1.0"),
        (lambda: EDM(rho=0.0), "rho must be > 0 and finite, got rho=0.0"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("sde", "low", "high"),
    [
        (EDM(1e-5, 1.0), 1e-5, 1.0),
        (VE(0.01, 2000.0), 0.01, 2000.0),
        (VE(300.0, 500.0), 300.0, 500.0),
        (Multiplicative(VE(0.01, 2000.0)), 0.01, 2000.0),
        (RectifiedFlow(), 2e-3, 200.0),
        (VP(beta_max=40.0), 2e-3, 200.0),
    ],
)
def test_sampling_runs_over_the_range_that_the_process_states(sde, low, high):
    assert sde.s_min == pytest.approx(low, rel=1e-9)
    assert sde.s_max == pytest.approx(high, rel=1e-9)


@pytest.mark.parametrize(("sde", "std"), [(EDM(1e-5, 1.0), 1e-3), (VE(0.01, 2000.0), 300.0)], ids=["small", "large"])
def test_data_far_from_unit_scale_are_sampled(sde, std):
    r"""The flow from N(0, sigma_max^2) to N(0, std^2) data ends at std sigma_max/hypot(std, sigma_max)."""
    oracle = Independent(torch.zeros(1, dtype=torch.float64), std**2, sde)
    x = ExponentialABM(64)(oracle, (20_000, 1), generator=torch.Generator().manual_seed(0))
    assert x.std().item() == pytest.approx(std * sde.sigma_max / math.hypot(std, sde.sigma_max), rel=0.02)
