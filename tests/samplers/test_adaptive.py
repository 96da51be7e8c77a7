r"""The adaptive flow: its error follows its tolerance, its calls follow its error."""

import pytest
import torch
from oracles import gaussian, gaussian_flow, standard_mixture

from scoregen.samplers import AdaptiveFlow, Karras, Levels, VelocityABM

MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
ORACLE = gaussian(MEAN, COVARIANCE)
U = 80 * torch.tensor([[1.0, -0.5], [-1.2, 0.3]], dtype=torch.float64)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_error_follows_the_tolerance(tolerance):
    grid = Karras()(ORACLE.sde, 2)
    end = AdaptiveFlow(tolerance).integrate(ORACLE, U, grid[:-1], None)
    exact = gaussian_flow(MEAN, COVARIANCE, U, 80.0, 0.002)
    # some twenty steps, each within the tolerance of a state that shrinks
    assert (end - exact).abs().max().item() < 30 * tolerance


def test_tighter_tolerance_costs_more_calls():
    counts = []
    for tolerance in (1e-3, 1e-6):
        calls = []

        def denoise(u, s, calls=calls):
            calls.append(float(s))
            return ORACLE(u, s)

        AdaptiveFlow(tolerance).integrate(denoise, U, Karras()(ORACLE.sde, 2), None)
        assert min(calls) == pytest.approx(0.002) and max(calls) == pytest.approx(80)
        counts.append(len(calls))
    assert counts[0] < counts[1] < 500


def test_agrees_with_a_fine_grid_on_a_mixture():
    oracle = standard_mixture()
    u = oracle.sample(64, torch.Generator().manual_seed(0), 80.0)
    fine = VelocityABM(600, order=4).integrate(oracle, u, Karras()(oracle.sde, 600), None)
    end = AdaptiveFlow(1e-7).integrate(oracle, u, Karras()(oracle.sde, 2), None)
    torch.testing.assert_close(end, fine, rtol=0, atol=1e-4)


def test_levels_between_the_ends_do_not_matter():
    few, many = (AdaptiveFlow(1e-4).integrate(ORACLE, U, Karras()(ORACLE.sde, k), None) for k in (2, 30))
    torch.testing.assert_close(few, many)


def test_time_travel_adds_noise_at_the_turn():
    draws = []

    def noise(u):
        draws.append(1)
        return torch.zeros_like(u)

    grid = Levels([80.0, 1.0, 5.0, 1.0, 0.002])(ORACLE.sde, 1)
    AdaptiveFlow(1e-4).integrate(ORACLE, U, grid, noise)
    assert len(draws) == 1


def test_tolerance_must_be_positive():
    with pytest.raises(ValueError, match="tolerance must be > 0"):
        AdaptiveFlow(0.0)
