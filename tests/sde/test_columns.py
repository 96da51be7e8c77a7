r"""The chart of a table: its inverse, its derivatives, and the law to which it takes each column."""

import math
from functools import cache

import pytest
import torch

from scoregen.sde import Columns

N = 2000


def table() -> torch.Tensor:
    r"""Tiny log-normal, huge uniform, two bumps, whole numbers."""
    g = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(N, generator=g, dtype=torch.float64)  # noqa: E731
    bumps = torch.where(torch.rand(N, generator=g) < 0.5, draw() - 3, 0.3 * draw() + 3)
    uniform = torch.rand(N, generator=g, dtype=torch.float64)
    return torch.stack([1e-6 * draw().exp(), 1e6 * uniform, bumps, (5 * uniform).floor() + draw() * 0.1], 1)


@cache
def chart() -> Columns:
    return Columns(**Columns.fit(table(), [True, False, False, False]))


def with_one_hot(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, torch.eye(2, dtype=x.dtype).repeat(len(x) // 2, 1)], 1)


def test_every_column_has_about_the_law_of_the_prior():
    y = chart().forward(with_one_hot(table()))
    assert (y[:, :4].mean(0).abs() < 0.02).all() and ((y[:, :4].std(0) - 0.5).abs() < 0.06).all()
    assert torch.equal(y[:, 4:], with_one_hot(table())[:, 4:])


def test_the_inverse_is_exact_far_beyond_the_data():
    y = 3 * torch.randn(500, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(chart().forward(chart().inverse(y)), y, rtol=1e-10, atol=1e-10)


def test_derivatives_are_those_of_the_inverse():
    y = torch.randn(200, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    h, made = 1e-5, chart()
    slope, bend = made.inverse_derivatives(y)
    up, down, here = made.inverse(y + h), made.inverse(y - h), made.inverse(y)
    assert torch.allclose(slope, (up - down) / (2 * h), rtol=1e-5)
    near = (up - 2 * here + down) / h**2  # a bend jumps at a knot, which few steps of h cross
    wrong = (near - bend).abs() > 1e-3 * (slope.abs() + bend.abs())
    assert wrong.double().mean() < 0.01


def test_the_log_determinant_is_in_units_of_the_data():
    x = with_one_hot(table())
    made, scale = chart(), torch.tensor([1e3, 1e-3, 10.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    other = Columns(**Columns.fit((x * scale)[:, :4], [True, False, False, False]))
    moved = made.log_det(x) - other.log_det(x * scale)
    torch.testing.assert_close(moved, torch.full_like(moved, math.log(10.0)), rtol=1e-8, atol=1e-8)


def test_missing_values_stay_missing_and_wrong_ones_are_named():
    x = with_one_hot(table())
    x[0, 0] = x[1, 2] = math.nan
    y = chart().forward(x)
    assert y.isnan().nonzero().tolist() == [[0, 0], [1, 2]]
    x[5, 0] = 0.0
    with pytest.raises(ValueError, match=r"x must be > 0 and finite .* got 1 values .* column 0 \(0\)"):
        chart().forward(x)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale": [0.0], "shift": [0.0], "logarithmic": [False]}, "scale must be > 0"),
        ({"scale": [1.0], "shift": [0.0, 1.0], "logarithmic": [False]}, "shift must have an entry for each of the 1"),
        (
            {"scale": [1.0], "shift": [0.0], "logarithmic": [False], "knots": [[0.0, 0.0]], "levels": [[0.0, 1.0]]},
            "must increase",
        ),
    ],
)
def test_arguments_that_are_no_chart_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Columns(**given)


def test_a_table_of_categories_alone_has_a_chart():
    chart = Columns(**Columns.fit(torch.empty(4, 0), []))
    y = torch.eye(4)[:, :3]
    for found in (chart.forward(y), chart.inverse(y), chart.inverse_derivatives(y)[0] * y):
        assert torch.equal(found, y)
