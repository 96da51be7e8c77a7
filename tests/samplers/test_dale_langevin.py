r"""Dale-Langevin and ambient sampling of geometric Brownian motion: closed forms, published errors, signs."""

import math
import warnings

import pytest
import torch
from dale import DATA, GBM
from oracles import Independent, affine_law, log_normal_mixture

from scoregen.samplers import (
    AmbientLangevin,
    Ancestral,
    DaleLangevin,
    DalePaper,
    EulerMaruyama,
    ExponentialABM,
    Grid,
    Heun,
    PredictorCorrector,
    VelocityABM,
    dale_langevin_step,
)
from scoregen.sde import VE, GeometricBrownianMotion, GeometricOU, Multiplicative


def uniform_variance(steps, vol=0.8):
    r"""Levels of equal steps in v = vol^2 t down to (almost) 0; the last jump, at s = 1e-7, does nothing."""
    v = torch.linspace(vol**2, 0, steps + 1, dtype=torch.float64)[:-1]
    return torch.cat([v.sqrt(), torch.tensor([1e-7, 0.0], dtype=torch.float64)])


@pytest.mark.parametrize(("steps", "published"), [(8, 0.0394), (16, 0.0191), (64, 0.0047), (256, 0.0012)])
def test_dale_langevin_spread_on_log_normal_data(steps, published):
    # V_{k-1} = V_k (1 - dv/(s^2 + v_k))^2 + dv from V_N = s^2 + v_T, and no error of the mean
    var, dv = 0.25 + 0.64, 0.64 / steps
    for k in range(steps, 0, -1):
        var = var * (1 - dv / (0.25 + dv * k)) ** 2 + dv
    mean, ours = affine_law(DaleLangevin(steps), DATA, uniform_variance(steps), 0.3, 0.89)
    assert mean == pytest.approx(0.3, abs=1e-12)
    assert ours == pytest.approx(var, abs=1e-10)
    assert math.sqrt(ours) - 0.5 == pytest.approx(published, abs=6e-5)


@pytest.mark.parametrize(
    ("steps", "mean", "std", "negative"), [(8, -0.0572, 0.0794, 2.4e-3), (16, -0.0234, 0.0260, 9e-6)]
)
def test_ambient_error_on_log_normal_data(steps, mean, std, negative):
    # n = 250k draws: standard errors 1.1e-3 and 0.8e-3, of the reference about the same; 4 joint standard errors
    generator = torch.Generator().manual_seed(steps)

    def noise(u):
        return torch.randn(u.shape, generator=generator, dtype=u.dtype)

    u = 0.3 + math.sqrt(0.89) * noise(torch.empty(250_000, 1, dtype=torch.float64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = AmbientLangevin(steps).integrate(DATA, u, uniform_variance(steps), noise)
    assert out.mean().item() - 0.3 == pytest.approx(mean, abs=6e-3)
    assert out.std().item() - 0.5 == pytest.approx(std, abs=5e-3)
    flips = int(str(caught[0].message).split()[1]) if caught else 0
    assert abs(flips - 250_000 * negative) < 5 * math.sqrt(250_000 * negative) + 1


def test_ambient_step_is_the_papers():
    # X <- X (1 + 2 delta vol^2 - delta mu + delta vol^2 h + sqrt(delta) vol z), with mu = vol^2/2
    delta, t, z = 0.05, 0.6, 0.4
    x = torch.tensor([[0.7], [2.0], [5.0]], dtype=torch.float64)
    s, n = GBM.noise_ratio(t), GBM.noise_ratio(t - delta)
    u = x.log()
    h = (DATA(u, s) - u) / s**2 - 1
    expected = x * (1 + 2 * delta * 0.64 - delta * 0.32 + delta * 0.64 * h + math.sqrt(delta) * 0.8 * z)
    end = AmbientLangevin(1).integrate(DATA, u, torch.stack([s, n]), lambda u: torch.full_like(u, z))
    torch.testing.assert_close(end.exp(), expected, rtol=1e-11, atol=1e-12)


def test_ambient_steps_do_not_depend_on_the_scale_of_the_chart():
    scaled = GeometricBrownianMotion(0.8, data_range=(0.5, 3.0))
    a = scaled.scale
    shift = scaled.to_chart(torch.ones(1, dtype=torch.float64)).item()
    x = torch.tensor([[0.7], [2.0]], dtype=torch.float64)
    ends = []
    for sde, oracle in ((GBM, DATA), (scaled, Independent(a * 0.3 + shift, a**2 * 0.25, scaled))):
        grid = torch.stack([sde.noise_ratio(0.6), sde.noise_ratio(0.5)])
        end = AmbientLangevin(1).integrate(oracle, sde.to_chart(x), grid, torch.ones_like)
        ends.append(sde.from_chart(end))
    torch.testing.assert_close(ends[0], ends[1])


def test_dale_langevin_step_is_the_multiplicative_form():
    # the x-space form of the paper, with the coefficients of this time, is the exact one when they are constant
    sde = GeometricBrownianMotion(0.8, drift=0.5)
    oracle = Independent(0.3, 0.25, sde)
    delta, t = 0.05, 0.6
    x = torch.tensor([[0.7], [2.0], [5.0]], dtype=torch.float64)
    z = torch.tensor([[0.4], [-1.0], [2.0]], dtype=torch.float64)
    u, s = sde.to_u(x, t)
    h = (oracle(u, s) - u) / s**2 - 1
    grid = torch.stack([s, sde.noise_ratio(t - delta)])
    end = sde.from_u(DaleLangevin(1).integrate(oracle, u, grid, lambda u: z), t - delta)
    torch.testing.assert_close(dale_langevin_step(x, h, 0.8, 0.5, delta, z), end)
    expected = x * (delta * 0.64 * h - delta * (0.5 - 1.5 * 0.64) + math.sqrt(delta) * 0.8 * z).exp()
    torch.testing.assert_close(end, expected)


class FromTime(Grid):
    r"""t = tau^power from 1 down to 1e-4."""

    def __init__(self, power):
        self.power = power

    def levels(self, sde, s_max, s_min, steps):
        low = 1e-4 ** (1 / self.power)
        return sde.noise_ratio(torch.linspace(1, low, steps, dtype=torch.float64) ** self.power)


W1 = {
    "uniform_8": (DaleLangevin, 1, 8, 0.148),
    "uniform_128": (DaleLangevin, 1, 128, 0.028),
    "power4_8": (DaleLangevin, 4, 8, 0.031),
    "power4_16": (DaleLangevin, 4, 16, 0.015),
    "power4_32": (DaleLangevin, 4, 32, 0.0074),
    "power4_64": (DaleLangevin, 4, 64, 0.0036),
    "power4_128": (DaleLangevin, 4, 128, 0.0018),
    "ambient_128": (AmbientLangevin, 4, 128, 0.0024),
}


@pytest.mark.parametrize(("kind", "power", "steps", "published"), W1.values(), ids=W1.keys())
def test_wasserstein_distance_on_the_log_normal_mixture(kind, power, steps, published):
    # the floor of two samples of 40k is 1.5e-3
    oracle = log_normal_mixture(GBM)
    generator = torch.Generator().manual_seed(steps)
    u = oracle.sample(40_000, generator, 0.8)
    sampler = kind(steps, FromTime(power))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = sampler.integrate(
            oracle, u, sampler.grid(GBM, steps), lambda u: torch.randn(u.shape, generator=generator, dtype=u.dtype)
        )
    data = oracle.sample(40_000, generator)
    distance = (out.exp().sort(0).values - data.exp().sort(0).values).abs().mean().item()
    assert abs(distance - published) < 0.2 * published + 2e-3


def test_probability_flow_of_geometric_brownian_motion():
    # y_0 = a + (y_T - a - m) s/sqrt(s^2 + v)
    sde = GeometricBrownianMotion(0.8, drift=0.7)
    oracle = Independent(0.3, 0.25, sde)
    y = torch.linspace(-1, 3, 9, dtype=torch.float64)[:, None]
    m = 0.7 - 0.32
    expected = 0.3 + (y - 0.3 - m) * 0.5 / math.sqrt(0.25 + 0.64)
    x = VelocityABM(200, order=4)(oracle, start=(y.exp(), 1.0))
    torch.testing.assert_close(x.log(), expected, rtol=0, atol=2e-5)


PROCESSES = {
    "gbm": GeometricBrownianMotion(3.0),
    "geometric_ou": GeometricOU(mean=0.3),
    "multiplicative": Multiplicative(VE(0.01, 20.0), offset=0.0),
}


@pytest.mark.parametrize("sde", PROCESSES.values(), ids=PROCESSES.keys())
@pytest.mark.parametrize("kind", [DaleLangevin, Heun], ids=lambda k: k.__name__)
def test_samples_are_positive(sde, kind):
    oracle = Independent(0.3, 0.25, sde)
    x = kind(8)(oracle, (2000, 1), generator=torch.Generator().manual_seed(0))
    assert bool((x > 0).all())


def test_samples_scale_with_the_data():
    # data times a: log data plus log a, and the samples follow
    a, generator = 7.0, torch.Generator()
    plain, scaled = Independent(0.3, 0.25, GBM), Independent(0.3 + math.log(a), 0.25, GBM)
    x_t = torch.linspace(0.5, 4, 8, dtype=torch.float64)[:, None]
    one = DaleLangevin(8)(plain, start=(x_t, 1.0), generator=generator.manual_seed(0))
    other = DaleLangevin(8)(scaled, start=(a * x_t, 1.0), generator=generator.manual_seed(0))
    torch.testing.assert_close(other, a * one)


@pytest.mark.parametrize(("steps", "fraction"), [(8, 0.44), (64, 0.14), (128, 7.3e-3)])
def test_ambient_flips_at_high_volatility_are_counted(steps, fraction):
    sde = GeometricBrownianMotion(3.0)
    oracle = Independent(0.3, 0.25, sde)
    generator = torch.Generator().manual_seed(0)

    def noise(u):
        return torch.randn(u.shape, generator=generator, dtype=u.dtype)

    u = 0.3 + math.sqrt(9.25) * noise(torch.empty(20_000, 1, dtype=torch.float64))
    with pytest.warns(UserWarning, match="AmbientLangevin: .* of 20000 values .* crossed zero") as caught:
        AmbientLangevin(steps).integrate(oracle, u, uniform_variance(steps, 3.0), noise)
    count = int(str(caught[0].message).split()[1])
    # 5 standard errors, and the rounding of the published fraction
    assert abs(count / 20_000 - fraction) < 5 * math.sqrt(fraction / 20_000) + 0.006


def test_ambient_refuses_an_additive_process():
    with pytest.raises(TypeError, match=r"AmbientLangevin needs a multiplicative process, .*got EDM"):
        AmbientLangevin(2)(Independent(0.0, 1.0), (1, 1))


@pytest.mark.parametrize(("steps", "mean", "std"), [(64, -0.0040, 0.0057), (256, -0.0017, 0.0020)])
def test_ambient_error_shrinks_as_published(steps, mean, std):
    # n = 100k draws: standard errors 1.6e-3 and 1.1e-3, of the reference about the same; 3 joint standard errors
    generator = torch.Generator().manual_seed(steps)

    def noise(u):
        return torch.randn(u.shape, generator=generator, dtype=u.dtype)

    u = 0.3 + math.sqrt(0.89) * noise(torch.empty(100_000, 1, dtype=torch.float64))
    out = AmbientLangevin(steps).integrate(DATA, u, uniform_variance(steps), noise)
    assert out.mean().item() - 0.3 == pytest.approx(mean, abs=7e-3)
    assert out.std().item() - 0.5 == pytest.approx(std, abs=5e-3)


class Euler(EulerMaruyama):
    r"""Euler-Maruyama on the reverse SDE of y = log X in the time t, straight from its drift."""

    def step(self, denoise, u, s, n, noise, memory):
        t, t_next = s**2 / 0.64, n**2 / 0.64
        h = (denoise(u, s) - u) / s**2 - 1
        drift = 0.32 - 1.5 * 0.64 - 0.64 * h
        return u + drift * (t_next - t) + 0.8 * math.sqrt(t - t_next) * noise(u), None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dale_langevin_is_euler_maruyama_on_log_x_to_rounding(dtype):
    def ends(sampler):
        generator = torch.Generator().manual_seed(1)
        u = torch.linspace(-2, 3, 50, dtype=dtype)[:, None]
        return sampler.integrate(
            DATA, u, uniform_variance(40)[:-1], lambda u: torch.randn(u.shape, generator=generator, dtype=dtype)
        )

    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ends(DaleLangevin(40)), ends(Euler(40)), rtol=0, atol=400 * eps)


class Single(Independent):
    r"""The same law for states in single precision."""

    def parameters(self):
        return iter((self.mean.float(),))

    def __call__(self, u, s, label=None):
        return super().__call__(u.double(), s).to(u)


@pytest.mark.parametrize("offset", [0.0, 0.1, 1.0])
def test_samples_are_positive_in_float32(offset):
    # data times 1e-3 and 1e3; the floor of a sample is -offset up to the rounding of the subtraction
    sde = GeometricBrownianMotion(3.0, offset=offset)
    oracle = Single(torch.tensor([-7.0, 0.0, 7.0]), 1.0, sde)
    u = 5 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    u = u.clamp_min(-12) if offset else u  # below, float32 has no x left beside the offset, which is refused
    for sampler in (DaleLangevin(8), Heun(8), Ancestral(8), ExponentialABM(8), PredictorCorrector(8), DalePaper(20)):
        generator = torch.Generator().manual_seed(0)
        x = sampler(oracle, start=(sde.from_u(u, 1.0), 1.0), generator=generator)
        assert x.dtype == torch.float32
        assert bool((x > 0).all() if offset == 0 else (x >= -offset - 1e-7).all())


@pytest.mark.parametrize("kind", [Ancestral, Heun, ExponentialABM, PredictorCorrector], ids=lambda k: k.__name__)
def test_every_sampler_scales_with_the_data(kind):
    a, generator = 7.0, torch.Generator()
    plain, scaled = Independent(0.3, 0.25, GBM), Independent(0.3 + math.log(a), 0.25, GBM)
    x_t = torch.linspace(0.5, 4, 8, dtype=torch.float64)[:, None]
    one = kind(8)(plain, start=(x_t, 1.0), generator=generator.manual_seed(0))
    other = kind(8)(scaled, start=(a * x_t, 1.0), generator=generator.manual_seed(0))
    torch.testing.assert_close(other, a * one)


@pytest.mark.parametrize("level", [0.1, 0.8])
def test_the_corrector_has_half_the_drift(level):
    # X exp(eta/2 (1 + h) + sqrt(eta) z) keeps the law of the level; with the full drift it would keep q^2, half the
    # variance. PredictorCorrector's step is r s, so eta = (r s)^2, and its law is that of the recursion
    # V <- V (1 - eta/(2 q))^2 + eta, whose fixed point is q (1 + O(eta/q))
    q, r = 0.25 + level**2, 0.1
    eta = (r * level) ** 2
    sampler = PredictorCorrector(1, predictor=Still(1), corrections=1, step_size=r)
    _, var = affine_law(sampler, DATA, torch.tensor([level, level / 2], dtype=torch.float64), 0.3, q)
    assert var == pytest.approx(q * (1 - eta / (2 * q)) ** 2 + eta, rel=1e-12)
    assert abs(var / q - 1) < (eta / q) ** 2  # full drift: eta/q


class Still(EulerMaruyama):
    r"""A predictor that does nothing."""

    def step(self, denoise, u, s, n, noise, memory):
        return u, None


def test_ambient_langevin_refuses_an_additive_process_at_any_number_of_steps():
    with pytest.raises(TypeError, match="AmbientLangevin needs a multiplicative process"):
        AmbientLangevin(1)(Independent(0, 1, VE()), (2, 2))
