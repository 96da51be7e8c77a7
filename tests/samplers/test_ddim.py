r"""The DDIM family against diffusers, closed forms and exact consistency functions."""

import math

import pytest
import torch
from oracles import Independent, affine_law, gaussian, gaussian_flow, standard_mixture

from scoregen.samplers import DDIM, Ancestral, Consistency, Karras, Levels


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_eta_ddim_is_that_of_diffusers(eta):
    # in float64 on both sides: diffusers keeps float32 tables, which are replaced by their float64 values
    from diffusers import DDIMScheduler

    oracle = standard_mixture()
    scheduler = DDIMScheduler(1000, prediction_type="sample", clip_sample=False, set_alpha_to_one=True)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(25)
    alpha2 = scheduler.alphas_cumprod[scheduler.timesteps]
    levels = ((1 - alpha2) / alpha2).sqrt()
    generator = torch.Generator().manual_seed(0)
    u = levels[0] * torch.randn(32, 2, dtype=torch.float64, generator=generator)
    draws = torch.randn(25, 32, 2, dtype=torch.float64, generator=generator)

    x = u * alpha2[0].sqrt()
    for i, t in enumerate(scheduler.timesteps):
        denoised = oracle(x / alpha2[i].sqrt(), levels[i])
        x = scheduler.step(denoised, t, x, eta=eta, variance_noise=draws[i] if eta else None).prev_sample
    ours = iter(draws)
    grid = torch.cat([levels, levels.new_zeros(1)])
    torch.testing.assert_close(
        DDIM(25, eta=eta).integrate(oracle, u, grid, lambda _: next(ours)), x, rtol=1e-12, atol=1e-12
    )


def test_one_step_is_the_euler_step_of_the_flow():
    oracle = standard_mixture()
    u = torch.tensor([[0.4, -1.3], [2.0, 0.1]], dtype=torch.float64)
    s, n = 1.7, 0.9
    grid = torch.tensor([s, n], dtype=torch.float64)
    expected = u + (n - s) * (u - oracle(u, s)) / s
    torch.testing.assert_close(DDIM(1).integrate(oracle, u, grid, None), expected)


def test_ancestral_step_draws_from_the_posterior_of_ddpm():
    # for a point mass at m, u_n given u_s is exact: mean m + (n/s)^2 (u - m), variance n^2 (1 - (n/s)^2)
    oracle = Independent(0.4, 0.0)
    s, n = 2.0, 0.5
    grid = torch.tensor([s, n], dtype=torch.float64)
    mean, var = affine_law(Ancestral(1), oracle, grid, start_mean=1.4, start_var=0.0)
    assert mean == pytest.approx(0.4 + (n / s) ** 2, rel=1e-14)
    assert var == pytest.approx(n**2 * (1 - (n / s) ** 2), rel=1e-14)


class ExactConsistency(Independent):
    r"""The flow map from s to 0 of the same law."""

    def __call__(self, u, s, label=None):
        return self.mean + (self.var / (self.var + s**2)).sqrt() * (u - self.mean)


@pytest.mark.parametrize("levels", [[80.0], [80.0, 3.0, 0.4], [80.0, 0.1, 5.0, 2.0, 0.01]], ids=["1", "3", "up"])
def test_consistency_sampling_with_the_exact_function_keeps_the_law(levels):
    oracle = ExactConsistency(0.7, 0.09)
    sampler = Consistency(len(levels), Levels(levels))
    grid = sampler.grid(oracle.sde, 1)
    mean, var = affine_law(sampler, oracle, grid, 0.7, 0.09 + 80.0**2)
    assert mean == pytest.approx(0.7, rel=1e-14)
    assert var == pytest.approx(0.09, rel=1e-13)


def test_ddim_approaches_the_exact_flow_of_a_normal_law():
    # error O(h): 4000 steps of size 2.6e-3 in log s
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    u = 80 * torch.tensor([[1.0, -0.5], [-1.2, 0.3]], dtype=torch.float64)
    end = DDIM(2000).integrate(oracle := gaussian(mean, covariance), u, Karras()(oracle.sde, 2000), None)
    torch.testing.assert_close(end, gaussian_flow(mean, covariance, u, 80.0, 0.0), rtol=0, atol=5e-3)


def test_a_start_without_the_mean_ends_as_the_formula_says():
    # from N(0, s_T^2) and not the exact marginal: mean m (1 - sqrt(l/(l + s_T^2))), std sqrt(l) s_T/sqrt(l + s_T^2)
    m, v, s = 0.7, 0.3, 2.0
    oracle = Independent(m, v)
    grid = Karras()(oracle.sde, 4000, s)
    mean, var = affine_law(DDIM(4000), oracle, grid, 0.0, s**2)
    assert mean == pytest.approx(m * (1 - math.sqrt(v / (v + s**2))), abs=1e-3)
    assert math.sqrt(var) == pytest.approx(math.sqrt(v) * s / math.sqrt(v + s**2), abs=1e-3)


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_eta_outside_its_range_is_an_error(eta):
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        DDIM(eta=eta)
