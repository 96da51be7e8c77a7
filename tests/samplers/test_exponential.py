r"""The weights of the multistep methods, and the denoisers on which each is exact."""

import functools
import math

import numpy as np
import pytest
import torch
from oracles import standard_mixture

from scoregen.samplers import DDIM, ExponentialAB, ExponentialABM, Karras, VelocityABM
from scoregen.samplers.exponential import damped_weights, exponential_integrals, exponential_weights

LEVEL = functools.partial(torch.tensor, dtype=torch.float64)
U = torch.tensor([[1.0, -2.0], [4.0, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("h", [1e-6, 1e-3, 0.1, 0.99, 1.01, 3.0, 10.0])
def test_integrals_to_round_off(h):
    # by Gauss-Legendre quadrature with 60 points
    nodes, weights = np.polynomial.legendre.leggauss(60)
    tau = h * (nodes + 1) / 2
    expected = [float((weights * np.exp(tau - h) * tau**i).sum() * h / 2) for i in range(4)]
    assert exponential_integrals(h, 4) == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_weights_integrate_polynomials(count):
    q, h = [0.0, -0.4, -1.1, -1.3][:count], 0.7
    weights = exponential_weights(q, h)
    for degree, integral in enumerate(exponential_integrals(h, count)):
        assert sum(w * node**degree for w, node in zip(weights, q, strict=True)) == pytest.approx(integral, rel=1e-12)


def test_damped_weights_are_those_of_2m():
    # u' = (n/s) u + (1 - e^{-h}) [(1 + 1/(2r)) D_0 - 1/(2r) D_1], r = h_last/h
    h, last = 0.7, 0.4
    r = last / h
    expected = [(1 - math.exp(-h)) * (1 + 1 / (2 * r)), -(1 - math.exp(-h)) / (2 * r)]
    assert damped_weights([0.0, -last], h) == pytest.approx(expected, rel=1e-13)


def test_order_one_is_ddim():
    oracle = standard_mixture()
    grid = Karras()(oracle.sde, 12, 5.0)
    ddim = DDIM(12).integrate(oracle, U, grid, None)
    torch.testing.assert_close(ExponentialAB(12, order=1).integrate(oracle, U, grid, None), ddim)


def flow_of_a_polynomial(s, n, power):
    r"""The solution at n of du/dl = l^power - u from U at s, by quadrature of the variation of constants."""
    nodes, weights = np.polynomial.legendre.leggauss(30)
    start, end = -math.log(s), -math.log(n)
    tau = start + (end - start) * (nodes + 1) / 2
    return n / s * U + float((weights * np.exp(tau - end) * tau**power).sum()) * (end - start) / 2


def history(power, levels):
    return tuple((s, torch.full_like(U, (-math.log(s)) ** power)) for s in levels)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_bashforth_is_exact_on_polynomials_in_log_s(order):
    power, (s, n) = order - 1, (1.2, 0.5)

    def denoise(u, s):
        return torch.full_like(u, (-math.log(s)) ** power)

    sampler = ExponentialAB(6, order=order)
    u, _ = sampler.step(denoise, U, LEVEL(s), LEVEL(n), None, history(power, (2.2, 3.1)))
    torch.testing.assert_close(u, flow_of_a_polynomial(s, n, power), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_moulton_is_exact_one_degree_higher(order):
    # the corrector knows the value at the end point as well
    s, n = 1.2, 0.5
    u = ExponentialABM(6, order=order).advance(U, s, n, history(order, (n, s, 2.2, 3.1)[: order + 1]))
    torch.testing.assert_close(u, flow_of_a_polynomial(s, n, order), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_velocity_steps_integrate_polynomials_on_the_straight_path(order):
    # a velocity tau^(order - 1) is integrated exactly by `order` values
    c = 0.7
    sampler = VelocityABM(8, order=order, scale=c, limit=1e9)

    def time(s):
        return s / (c + s)

    history = tuple((s, torch.full_like(U, time(s) ** (order - 1))) for s in (1.2, 2.2, 3.1, 5.0)[:order])
    end = sampler.advance(U, 1.2, 0.4, history)
    x = U * (1 - time(1.2)) + (time(0.4) ** order - time(1.2) ** order) / order
    torch.testing.assert_close(end * (1 - time(0.4)), x, rtol=1e-12, atol=1e-12)


def test_velocity_weights_do_not_amplify_beyond_the_limit():
    # tau-steps that grow threefold, as at the start of a coarse Karras grid
    nodes, step = [0.0, 0.1, 0.1 + 0.1 / 3, 0.1 + 0.1 / 3 + 0.1 / 9], -0.3
    counts = {}
    for limit in (1.0, 4.5, 35.0, 1e9):
        weights = VelocityABM(8, limit=limit)._weights(nodes, step)
        assert sum(weights) == pytest.approx(step) and sum(map(abs, weights)) <= limit * abs(step) * (1 + 1e-12)
        counts[limit] = len(weights)
    assert counts == {1.0: 1, 4.5: 2, 35.0: 3, 1e9: 4}


def test_limit_of_one_leaves_predictor_one_and_corrector_two():
    oracle = standard_mixture()
    grid = Karras()(oracle.sde, 9, 5.0)
    ends = [
        VelocityABM(9, order=k, limit=limit).integrate(oracle, U, grid, None) for k, limit in ((4, 1 + 1e-9), (1, 1e9))
    ]
    torch.testing.assert_close(ends[0], ends[1])


def test_velocity_is_the_time_derivative_on_the_straight_path():
    # x = (1 - tau) y_0 + tau c eps for a pair (y_0, eps): V = c eps - y_0
    c, s = 0.7, 1.3
    y, eps = torch.tensor([0.4]), torch.tensor([-0.8])
    torch.testing.assert_close(VelocityABM(1, scale=c).value(y + s * eps, y, s), c * eps - y)


def test_one_velocity_step_is_ddim():
    oracle = standard_mixture()
    grid = torch.tensor([2.0, 0.6], dtype=torch.float64)
    for scale in (0.1, 1.0):
        ours = VelocityABM(1, order=1, scale=scale).integrate(oracle, U, grid, None)
        torch.testing.assert_close(ours, DDIM(1).integrate(oracle, U, grid, None), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "build", [lambda: ExponentialAB(8, order=3), lambda: ExponentialABM(8, order=3), lambda: VelocityABM(8, order=4)]
)
def test_one_network_call_a_step(build):
    oracle, calls = standard_mixture(), []

    def denoise(u, s):
        calls.append(float(s))
        return oracle(u, s)

    sampler = build()
    grid = sampler.grid(oracle.sde, 8)
    sampler.integrate(denoise, U, grid, None)
    assert calls == grid[:-1].tolist()


def test_history_is_dropped_after_time_travel():
    # a stretch after a jump upward equals a fresh run from there
    oracle = standard_mixture()
    sampler = ExponentialAB(8, order=3)
    down, again = [5.0, 2.0, 0.8], [3.0, 1.0, 0.4, 0.1]
    grid = torch.tensor([*down, *again, 0.0], dtype=torch.float64)
    middle = sampler.integrate(oracle, U, grid[:3], None)
    z = torch.ones_like(U)
    fresh = sampler.integrate(oracle, middle + math.sqrt(3.0**2 - 0.8**2) * z, grid[3:], None)
    torch.testing.assert_close(sampler.integrate(oracle, U, grid, lambda u: z), fresh)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ExponentialAB(order=4), "order must be a whole number from 1 to 3, got order=4"),
        (lambda: ExponentialABM(order=0), "order must be a whole number from 1 to 3"),
        (lambda: VelocityABM(order=5), "order must be a whole number from 1 to 4"),
        (lambda: VelocityABM(scale=0.0), "scale must be > 0"),
        (lambda: VelocityABM(limit=0.5), "limit must be >= 1"),
        (lambda: ExponentialAB(order=3, damped=True), "damped weights exist for order 2 only"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
