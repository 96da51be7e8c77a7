r"""Weak errors by impulse response: exact means and variances of stochastic samplers, no Monte Carlo."""

import math

import pytest
from oracles import Independent, affine_law

from scoregen.samplers import DDIM, Ancestral, DaleLangevin, EulerMaruyama, Heun, Karras, PredictorCorrector

MEAN, VAR = 0.7, 0.09
ORACLE = Independent(MEAN, VAR)


def variance_error(sampler):
    grid = Karras()(ORACLE.sde, sampler.steps)
    mean, var = affine_law(sampler, ORACLE, grid, MEAN, VAR + 80.0**2)
    assert mean == pytest.approx(MEAN, abs=1e-12)
    return var - VAR


CASES = {
    "ancestral": (Ancestral, -1, (0.85, 1.15)),
    "eta_half": (lambda k: DDIM(k, eta=0.5), -1, (0.85, 1.15)),
    "euler_maruyama": (EulerMaruyama, 1, (0.85, 1.2)),
    "twice_stochastic": (lambda k: EulerMaruyama(k, stochasticity=1.5), 1, (0.85, 1.3)),
    "dale_langevin": (DaleLangevin, 1, (0.85, 1.2)),
    "predictor_corrector": (lambda k: PredictorCorrector(k, step_size=0.1), -1, (0.85, 1.2)),
    "heun_churn": (lambda k: Heun(k, churn=10.0), 1, (1.85, 2.2)),
}


@pytest.mark.parametrize(("build", "sign", "slope"), CASES.values(), ids=CASES.keys())
def test_weak_order_and_sign_of_the_dispersion(build, sign, slope):
    coarse, fine = variance_error(build(64)), variance_error(build(128))
    assert math.copysign(1, coarse) == math.copysign(1, fine) == sign
    assert slope[0] < math.log2(coarse / fine) < slope[1]


def test_corrector_repairs_the_predictor():
    assert abs(variance_error(PredictorCorrector(32, step_size=0.7))) < 0.8 * abs(variance_error(Ancestral(32)))


def test_churn_adds_the_variance_that_it_says():
    # a flat denoiser D = u leaves u alone, so the churned variance is what the noise added
    class Flat(Independent):
        def __call__(self, u, s, label=None):
            return u

    sampler = Heun(1, churn=0.3)
    s = 2.0
    grid = Karras()(ORACLE.sde, 2, s)[:2]
    _, var = affine_law(sampler, Flat(0.0, 1.0), grid, 0.0, 0.0)
    assert var == pytest.approx((1.3**2 - 1) * s**2, rel=1e-12)


def test_euler_maruyama_without_noise_is_ddim():
    grid = Karras()(ORACLE.sde, 16)
    ours = affine_law(EulerMaruyama(16, stochasticity=0.0), ORACLE, grid, 1.0, 4.0)
    assert ours == pytest.approx(affine_law(DDIM(16), ORACLE, grid, 1.0, 4.0), rel=1e-12)


def test_langevin_step_matches_the_closed_form():
    # one correction at level s on N(m, v): u - m is multiplied by 1 - r^2/2 (1 - v/(v + s^2)), and r^2 s^2 is added
    r, s, n = 0.6, 1.5, 0.5
    grid = Karras()(ORACLE.sde, 2, s)[:1].repeat(2)
    grid[1] = n
    mean, var = affine_law(PredictorCorrector(1, predictor=DDIM(1), step_size=r), ORACLE, grid, MEAN + 1, VAR + s**2)
    keep = 1 - r**2 / 2 * s**2 / (VAR + s**2)
    ddim = (VAR + s * n) / (VAR + s**2)
    assert mean == pytest.approx(MEAN + ddim * keep, rel=1e-12)
    assert var == pytest.approx(ddim**2 * (keep**2 * (VAR + s**2) + r**2 * s**2), rel=1e-12)
