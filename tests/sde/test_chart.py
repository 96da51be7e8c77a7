r"""Charts against automatic differentiation."""

import pytest
import torch

from scoregen.sde import Affine, Compose, Log

CHARTS = {
    "identity": Affine(),
    "affine": Affine(2.0, -1.0),
    "log": Log(0.5),
    "standardised": Compose(Log(1.0), Affine(2.9, -1.0)),
    "nested": Compose(Compose(Log(0.1), Affine(0.7, 0.2)), Affine(3.0, -2.0)),
    "log of affine": Compose(Compose(Affine(0.7, 0.2), Log(0.1)), Affine(3.0, -2.0)),
    "twice affine": Compose(Affine(0.7, 0.2), Affine(3.0, -2.0)),
    "log of log": Compose(Log(2.0), Log(0.1)),
}
each = pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS.keys())
X = torch.linspace(0.01, 3.0, 24, dtype=torch.float64).reshape(4, 2, 3)


def derivative(function, at):
    at = at.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(at).sum(), at, create_graph=True)
    return slope


@each
def test_inverse_undoes_forward(chart):
    torch.testing.assert_close(chart.inverse(chart.forward(X)), X, rtol=1e-14, atol=1e-15)


@each
def test_inverse_derivatives_are_those_of_the_inverse(chart):
    y = chart.forward(X)
    slope, bend = chart.inverse_derivatives(y)
    torch.testing.assert_close(slope, derivative(chart.inverse, y).detach())
    if bend.any():
        torch.testing.assert_close(bend, derivative(lambda v: derivative_of_inverse(chart, v), y).detach())


def derivative_of_inverse(chart, y):
    (slope,) = torch.autograd.grad(chart.inverse(y).sum(), y, create_graph=True)
    return slope


@each
def test_log_det_is_that_of_the_jacobian(chart):
    jacobian = torch.stack([torch.autograd.functional.jacobian(chart.forward, x).reshape(6, 6) for x in X])
    torch.testing.assert_close(chart.log_det(X), torch.linalg.slogdet(jacobian).logabsdet)


@each
def test_as_affine_is_the_chart_where_it_is_affine(chart):
    affine, bends = chart.as_affine(), bool(chart.inverse_derivatives(chart.forward(X))[1].any())
    assert (affine is None) == bends
    if affine is not None:
        torch.testing.assert_close(affine.scale * X + affine.shift, chart.forward(X), rtol=1e-14, atol=1e-14)


@each
def test_as_log_is_the_chart_where_it_is_a_logarithm(chart):
    r"""slope/bend of the inverse is d y / d log(x + offset), the same everywhere for logarithms alone."""
    log, (slope, bend) = chart.as_log(), chart.inverse_derivatives(chart.forward(X))
    rates = slope / bend
    assert (log is not None) == bool(torch.allclose(rates, rates.flatten()[0]) and rates.isfinite().all())
    if log is not None:
        found = log.rate * (X + log.offset).log() + log.shift
        torch.testing.assert_close(found, chart.forward(X), rtol=1e-13, atol=1e-13)


def test_nonpositive_data_say_which_and_how_many():
    x = torch.tensor([[0.5, -0.25], [0.0, 2.0]])
    with pytest.raises(
        ValueError, match=r"x \+ offset must be > 0.*got 2 of 4 values that are not \(first: -0.25, 0\)"
    ):
        Log(0.0).forward(x)


def test_nan_does_not_pass_the_log_chart():
    with pytest.raises(ValueError, match="got 1 of 1 values"):
        Log(1.0).forward(torch.tensor([float("nan")]))


@pytest.mark.parametrize("build", [lambda: Affine(-1.0), lambda: Log(-0.1)], ids=["scale", "offset"])
def test_bad_charts_are_refused(build):
    with pytest.raises(ValueError, match="must be"):
        build()


@pytest.mark.parametrize("offset", [0.0, 0.1, 1.0, 3.7])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rounding_does_not_leave_the_domain_of_the_logarithm(offset, dtype):
    chart = Log(offset)
    x = chart.inverse(torch.tensor([-800.0, -200.0, -20.0], dtype=dtype))
    assert bool(chart.forward(x).isfinite().all())
