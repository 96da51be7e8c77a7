r"""Steps of stochastic samplers by impulse response, without Monte Carlo; their orders are in tests/laws."""

import pytest
from laws.orders import MEAN, NORMAL, VAR, variance_error
from oracles import Independent, affine_law

from scoregen.samplers import DDIM, Ancestral, EulerMaruyama, Heun, Karras, PredictorCorrector


def test_corrector_repairs_the_predictor():
    assert abs(variance_error(PredictorCorrector(32, step_size=0.7))) < 0.8 * abs(variance_error(Ancestral(32)))


def test_churn_adds_the_variance_that_it_says():
    # a flat denoiser D = u leaves u alone, so the churned variance is what the noise added
    class Flat(Independent):
        def __call__(self, u, s, label=None):
            return u

    sampler = Heun(1, churn=0.3)
    s = 2.0
    grid = Karras()(NORMAL.sde, 2, s)[:2]
    _, var = affine_law(sampler, Flat(0.0, 1.0), grid, 0.0, 0.0)
    assert var == pytest.approx((1.3**2 - 1) * s**2, rel=1e-12)


def test_euler_maruyama_without_noise_is_ddim():
    grid = Karras()(NORMAL.sde, 16)
    ours = affine_law(EulerMaruyama(16, stochasticity=0.0), NORMAL, grid, 1.0, 4.0)
    assert ours == pytest.approx(affine_law(DDIM(16), NORMAL, grid, 1.0, 4.0), rel=1e-12)


def test_langevin_step_matches_the_closed_form():
    # one correction at level s on N(m, v): u - m is multiplied by 1 - r^2/2 (1 - v/(v + s^2)), and r^2 s^2 is added
    r, s, n = 0.6, 1.5, 0.5
    grid = Karras()(NORMAL.sde, 2, s)[:1].repeat(2)
    grid[1] = n
    mean, var = affine_law(PredictorCorrector(1, predictor=DDIM(1), step_size=r), NORMAL, grid, MEAN + 1, VAR + s**2)
    keep = 1 - r**2 / 2 * s**2 / (VAR + s**2)
    ddim = (VAR + s * n) / (VAR + s**2)
    assert mean == pytest.approx(MEAN + ddim * keep, rel=1e-12)
    assert var == pytest.approx(ddim**2 * (keep**2 * (VAR + s**2) + r**2 * s**2), rel=1e-12)
