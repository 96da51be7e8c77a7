r"""The law of samplers: the order at which their error falls; and error bounds of the deterministic ones."""

from pathlib import Path

import pytest
from laws.discovery import classes, uncovered
from laws.orders import MIXTURE, Order, check_order, flow, rmse

from scoregen.config import build
from scoregen.description import plain
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
    Sampler,
    VelocityABM,
)

TESTS = Path(__file__).parents[1]

ORDERS = {
    "ddim": Order(DDIM, 0.80, 1.15),
    "heun": Order(Heun, 1.9, 2.15),
    "2m": Order(lambda k: ExponentialAB(k, order=2), 1.9, 2.15),
    "2m_damped": Order(lambda k: ExponentialAB(k, order=2, damped=True), 1.8, 2.15),
    "3m": Order(lambda k: ExponentialAB(k, order=3), 2.8, 3.3),
    "abm1": Order(lambda k: ExponentialABM(k, order=1), 1.7, 2.2),
    "abm2": Order(lambda k: ExponentialABM(k, order=2), 2.5, 3.3),
    "abm3": Order(lambda k: ExponentialABM(k, order=3), 3.6, 4.4),
    "velocity1": Order(lambda k: VelocityABM(k, order=1), 1.7, 2.2),
    "velocity2": Order(lambda k: VelocityABM(k, order=2), 2.5, 3.3),
    "velocity3": Order(lambda k: VelocityABM(k, order=3), 3.4, 4.4),
    "velocity4": Order(lambda k: VelocityABM(k, order=4), 4.2, 5.6),
    "ancestral": Order(Ancestral, 0.85, 1.15, -1),
    "eta_half": Order(lambda k: DDIM(k, eta=0.5), 0.85, 1.15, -1),
    "euler_maruyama": Order(EulerMaruyama, 0.85, 1.2, 1),
    "twice_stochastic": Order(lambda k: EulerMaruyama(k, stochasticity=1.5), 0.85, 1.3, 1),
    "dale_langevin": Order(DaleLangevin, 0.85, 1.2, 1),
    "predictor_corrector": Order(lambda k: PredictorCorrector(k, step_size=0.1), 0.85, 1.2, -1),
    "heun_churn": Order(lambda k: Heun(k, churn=10.0), 1.85, 2.2, 1),
}
# samplers without an order: the file of tests/ that has their law
ELSEWHERE = {
    "AdaptiveFlow": "samplers/test_adaptive.py",  # its error follows a tolerance
    "AmbientLangevin": "samplers/test_dale_langevin.py",  # only on log charts
    "Consistency": "samplers/test_all_pairs.py",  # exact in any number of steps, with a consistency model
    "DalePaper": "samplers/test_dale_paper.py",  # not a consistent discretisation, as these tests show
    "DiffusersSampler": "samplers/test_scheduler.py",  # that of the scheduler
}


@pytest.mark.parametrize("name", ORDERS)
def test_order(name):
    check_order(ORDERS[name])


@pytest.mark.parametrize("name", ORDERS)
def test_a_sampler_is_described_by_its_arguments(name):
    described = plain(ORDERS[name].build(7))
    assert described["steps"] == 7 and plain(build(described)) == described


def missing(orders: dict[str, Order]) -> list[str]:
    covered = {type(law.build(2)) for law in orders.values()}
    covered |= {kind for kind in classes(Sampler).values() if kind.__name__ in ELSEWHERE}
    return uncovered(Sampler, covered, "add its order to ORDERS in tests/laws/test_samplers.py")


def test_every_sampler_has_an_order():
    assert not missing(ORDERS)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_sampler_without_an_order_has_another_law(name):
    assert name in (TESTS / ELSEWHERE[name]).read_text()


BOUNDS = {
    "ddim": 2.8e-2,
    "heun": 1.66e-3,
    "2m": 2.7e-3,
    "3m": 7.9e-4,
    "abm2": 8.9e-4,
    "velocity3": 4.0e-4,
    "velocity4": 2.1e-4,
}


@pytest.mark.parametrize("name", BOUNDS)
def test_error_at_64_steps(name):
    # largest of several seeds, with half as much again for this one
    u, _, end = flow()
    found = ORDERS[name].build(64).integrate(MIXTURE, u, Karras()(MIXTURE.sde, 64), None)
    assert rmse(found, end) < 1.5 * BOUNDS[name]


def test_damped_weights_are_better_at_eight_steps():
    u, _, end = flow()
    grid = Karras()(MIXTURE.sde, 8)
    damped, exact = (
        rmse(ExponentialAB(8, order=2, damped=d).integrate(MIXTURE, u, grid, None), end) for d in (True, False)
    )
    assert damped < 0.7 * exact
