r"""Energy distances of whole samplers to the standard mixture, and the steps of the stochastic ones."""

import pytest
import torch
from oracles import Independent, energy_distance, standard_mixture

from scoregen.samplers import (
    DDIM,
    Ancestral,
    DaleLangevin,
    EulerMaruyama,
    ExponentialAB,
    ExponentialABM,
    Heun,
    Karras,
    PredictorCorrector,
    VelocityABM,
)
from scoregen.sde import VE

ORACLE = standard_mixture()


@pytest.fixture(scope="module")
def reference():
    return ORACLE.sample(2000, torch.Generator().manual_seed(1))


BOUNDS = {
    "heun_18": (lambda: Heun(18), 2.5e-3),
    "abm1_18": (lambda: ExponentialABM(18), 2.5e-3),
    "2m_18": (lambda: ExponentialAB(18, damped=True), 6e-3),
    "velocity_8": (lambda: VelocityABM(8), 5e-3),
    "velocity_18": (lambda: VelocityABM(18), 2.5e-3),
    "ddim_64": (lambda: DDIM(64), 2e-3),
    "ancestral_64": (lambda: Ancestral(64), 2e-3),
    "euler_maruyama_64": (lambda: EulerMaruyama(64), 2e-3),
    "predictor_corrector_64": (lambda: PredictorCorrector(64), 2e-3),
    "dale_langevin_64": (lambda: DaleLangevin(64, Karras()), 4e-3),
}


@pytest.mark.parametrize(("build", "bound"), BOUNDS.values(), ids=BOUNDS.keys())
def test_energy_distance_to_the_data(reference, build, bound):
    # |E| < 6e-4 is the level of two exact samples of 2000
    generator = torch.Generator().manual_seed(2)
    u = ORACLE.sample(2000, generator, 80.0)
    sampler = build()

    def noise(u):
        return torch.randn(u.shape, generator=generator, dtype=u.dtype)

    out = sampler.integrate(ORACLE, u, sampler.grid(ORACLE.sde, sampler.steps), noise)
    assert energy_distance(out, reference) < bound


@pytest.mark.parametrize("sampler", [DDIM(3), EulerMaruyama(3, stochasticity=0.0), VelocityABM(3), Heun(3)])
def test_deterministic_samplers_draw_nothing(sampler):
    def noise(u):
        raise AssertionError("a draw")

    sampler.integrate(ORACLE, torch.ones(2, 2, dtype=torch.float64), Karras()(ORACLE.sde, 3), noise)


STOCHASTIC = {
    "ancestral": (Ancestral(4), 3),
    "ddim_eta": (DDIM(4, eta=0.3), 3),
    "euler_maruyama": (EulerMaruyama(4), 3),
    "dale_langevin": (DaleLangevin(4), 3),
    "predictor_corrector": (PredictorCorrector(4), 7),
}


@pytest.mark.parametrize(("sampler", "draws"), STOCHASTIC.values(), ids=STOCHASTIC.keys())
def test_no_noise_after_the_last_call(sampler, draws):
    # the output is the last denoised value, and the last step draws nothing
    oracle, values, count = Independent(0.2, 0.5), [], 0

    def denoise(u, s):
        values.append(oracle(u, s))
        return values[-1]

    def noise(u):
        nonlocal count
        count += 1
        return torch.ones_like(u)

    out = sampler.integrate(denoise, torch.ones(1, 2, dtype=torch.float64), Karras()(oracle.sde, 4), noise)
    torch.testing.assert_close(out, values[-1], rtol=0, atol=0)
    assert count == draws


def test_euler_maruyama_step_in_closed_form():
    # u' = u + 2 (s - n)/s (D - u) + sqrt(2 s (s - n)) z
    oracle, s, n = Independent(0.2, 0.5), 2.0, 1.5
    grid = torch.tensor([s, n], dtype=torch.float64)
    u = torch.tensor([[1.1]], dtype=torch.float64)
    end = EulerMaruyama(1).integrate(oracle, u, grid, lambda u: torch.full_like(u, 0.7))
    expected = 1.1 + 0.5 * (oracle(u, s).item() - 1.1) + 2**0.5 * 0.7
    assert end.item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EulerMaruyama(stochasticity=-1.0), "stochasticity must be >= 0"),
        (lambda: PredictorCorrector(corrections=0), "corrections must be a whole number >= 1, got corrections=0"),
        (lambda: PredictorCorrector(step_size=0.0), r"step_size must lie in \(0, 1\]"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_churned_predictor_spreads_its_churn_over_the_steps_of_the_sampler():
    seen = []

    def denoise(u, s):
        seen.append(float(s))
        return torch.zeros_like(u)

    denoise.sde = VE(0.01, 80.0)
    s, n = torch.tensor(10.0, dtype=torch.float64), torch.tensor(5.0, dtype=torch.float64)
    PredictorCorrector(6, predictor=Heun(churn=1.2)).step(denoise, torch.ones(1, 1), s, n, torch.zeros_like, None)
    assert seen[1] == pytest.approx(10 * (1 + 1.2 / 6))
