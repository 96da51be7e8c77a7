r"""Split Gibbs: the law of each draw by quadrature, that of the chain in closed form, coverage of its intervals."""

import math
from itertools import pairwise

import pytest
import torch
from gibbs import SDES, D, axis, shares
from oracles import Independent, gaussian

from benchmarks.device_spy import DEVICE, Spy
from scoregen.models import Denoiser
from scoregen.rng import generators
from scoregen.samplers import (
    DDIM,
    Ancestral,
    DaleLangevin,
    GammaObservation,
    Karras,
    PixelObservation,
    PoissonObservation,
    Quantised,
    Sampler,
    SplitGibbs,
    speckle,
)


class Exactly(Sampler):
    r"""y ~ N(prior) N(z; y, rho^2), in closed form."""

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        super().__init__(1)
        self.mean, self.covariance = mean, covariance

    def step(self, denoise, u, s, n, noise, memory):
        raise NotImplementedError

    def conditional(self, s: float) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Gain and covariance of y given z."""
        one = torch.eye(len(self.mean), dtype=D)
        gain = self.covariance @ torch.linalg.inv(self.covariance + s**2 * one)
        return gain, self.covariance - gain @ self.covariance

    def integrate(self, denoise, u, grid, noise, progress=False, callback=None):
        gain, rest = self.conditional(grid[0].item())
        if u.shape[1] != len(gain):  # the look at whether it draws noise
            return noise(u)
        return self.mean + (u - self.mean) @ gain.T + noise(u) @ torch.linalg.cholesky(rest).T


class Normal(PixelObservation):
    r"""x plus normal noise, on the identity as a chart."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def check(self, observed):
        pass

    def first(self, observed):
        return torch.full_like(observed, 3.0)

    def draw(self, observed, z, y, rho, axis, uniform):
        share = rho**2 / (rho**2 + self.noise**2)
        return y + share * (observed - y) + self.noise * math.sqrt(share) * torch.special.ndtri(uniform(y))


@pytest.mark.parametrize("rounds", [3, 40])
def test_the_chain_of_a_normal_prior_and_likelihood_has_its_law(rounds):
    r"""8,000 chains at a fixed rho: mean and covariance after some rounds are those of the Markov chain, solved; after
    many they are those of the posterior for noise^2 + rho^2. Five standard errors."""
    mean, prior = torch.tensor([0.3, -0.5], dtype=D), torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=D)
    noise, rho, n, seen = 0.6, 0.5, 8000, torch.tensor([1.2, 0.4], dtype=D)
    sampler = Exactly(mean, prior)
    gibbs = SplitGibbs(Normal(noise), sampler, rounds, rho, rho)
    y = gibbs(gaussian(mean, prior), seen.expand(n, 2), generator=torch.Generator().manual_seed(0))

    share, (gain, rest) = rho**2 / (rho**2 + noise**2), sampler.conditional(rho)
    m, c = torch.full((2,), 3.0, dtype=D), torch.zeros(2, 2, dtype=D)
    for _ in range(rounds):
        m = mean + gain @ ((1 - share) * m + share * seen - mean)
        c = gain @ ((1 - share) ** 2 * c + share * noise**2 * torch.eye(2, dtype=D)) @ gain.T + rest
    if rounds == 40:
        k = prior @ torch.linalg.inv(prior + (noise**2 + rho**2) * torch.eye(2, dtype=D))
        torch.testing.assert_close(m, mean + k @ (seen - mean), rtol=0, atol=1e-4)
        torch.testing.assert_close(c, prior - k @ prior, rtol=0, atol=1e-4)
    assert bool(((y.mean(0) - m).abs() < 5 * (c.diagonal() / n).sqrt()).all())
    spread = ((c * c + c.diagonal()[:, None] * c.diagonal()) / n).sqrt()
    assert bool(((y.T.cov() - c).abs() < 5 * spread).all())


class InverseGamma:
    r"""E[log X | u] for X ~ InverseGamma(shape, scale), by quadrature on a table of u."""

    sde = SDES["log"]

    def __init__(self, shape: float, scale: float) -> None:
        self.shape, self.scale, self.tables = shape, scale, {}

    def parameters(self):
        return iter((torch.zeros((), dtype=torch.float32),))

    def __call__(self, u, s, label=None):
        if float(s) not in self.tables:
            steps = torch.linspace(-8, 8, 121, dtype=D)
            w = torch.linspace(-6, 10, 401, dtype=D)[:, None] + steps * float(s)
            weights = (-self.shape * w - self.scale * (-w).exp() - steps**2 / 2).clamp_min(-1e300).softmax(1)
            self.tables[float(s)] = (weights * w).sum(1).float()
        table, place = self.tables[float(s)], ((u + 6) * 25).clamp(0, 399.99)
        return torch.lerp(table[place.long()], table[place.long() + 1], place - place.floor())


def test_draws_behind_speckle_are_the_inverse_gamma_posterior_and_cover_the_scene():
    r"""X ~ InverseGamma(A, B), so X | I ~ InverseGamma(A + L, B + L I): mean and 5 and 95 % points of log X within the
    Monte Carlo error and that of rho. Between the extremes of 19 draws lies a scene with probability .90: the mean of
    its exact posterior probability over 300 scenes, of standard error .004."""
    a, b, looks, n, draws = 3.0, 2.0, 4.0, 300, 19
    g = torch.Generator().manual_seed(2)
    x = b / torch._standard_gamma(torch.full((1, n), a, dtype=D), generator=g)
    scale = b + looks * speckle(x, looks, g)[0][:, None]
    gibbs = SplitGibbs(GammaObservation(looks), DaleLangevin(4, Karras(1.0)), 20, 0.8, 0.08)
    found = gibbs(InverseGamma(a, b), ((scale - b) / looks).expand(n, draws).float(), generator=g).double()
    standard = (found / scale).log()  # -log Gamma(A + L), alike for all scenes
    exact = -torch._standard_gamma(torch.full((200_000,), a + looks, dtype=D), generator=g).log()
    error = exact.std().item() / math.sqrt(n * draws)
    assert standard.mean().item() == pytest.approx(exact.mean().item(), abs=4 * error + 0.005)
    for share in (0.05, 0.95):
        assert standard.quantile(share).item() == pytest.approx(exact.quantile(share).item(), abs=8 * error + 0.02)

    def upto(x):
        return torch.special.gammaincc(torch.full_like(x, a + looks), scale / x)

    covered = upto(found.amax(1, keepdim=True)) - upto(found.amin(1, keepdim=True))
    assert covered.mean().item() == pytest.approx(0.90, abs=0.02)


def prior(name: str) -> Independent:
    return Independent(-0.2, 0.09, SDES[name])


def test_missing_pixels_are_drawn_from_the_prior():
    r"""With nothing seen the chain leaves the prior; 6,000 pixels, five standard errors and the error of the steps."""
    seen = torch.full((1, 1, 60, 100), math.nan)
    gibbs = SplitGibbs(GammaObservation(4), Ancestral(60, Karras(3.0)), 6, 1.0, 0.5)
    x = gibbs(prior("affine"), seen, generator=torch.Generator().manual_seed(0))
    y = SDES["affine"].to_chart(x)
    assert y.mean().item() == pytest.approx(-0.2, abs=0.02) and y.std().item() == pytest.approx(0.3, rel=0.06)


def test_a_missing_pixel_changes_no_other_draw():
    seen = torch.full((1, 1, 4, 4), 0.3)
    holes = seen.clone()
    holes[..., 0, 0] = math.nan
    whole, part = (
        SplitGibbs(GammaObservation(4), rounds=4)(prior("log"), x, generator=torch.Generator().manual_seed(0))
        for x in (seen, holes)
    )
    assert torch.equal(whole.flatten()[1:], part.flatten()[1:]) and whole[0, 0, 0, 0] != part[0, 0, 0, 0]


LAWS = {
    "gamma": GammaObservation(4),
    "poisson": PoissonObservation(0.1),
    "quantised": Quantised(0.1),
    "speckled": Quantised(0.1, looks=4),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", SDES)
def test_the_same_seed_gives_the_same_scenes_whatever_the_batch(name, law):
    seen = torch.tensor([0.1, 0.3, 0.9, 1.0, 0.5, 0.2]).reshape(3, 1, 1, 2)
    gibbs = SplitGibbs(LAWS[law], rounds=3)
    whole = gibbs(prior(name), seen, generator=generators(0, 1, 0, [0, 1, 2]))
    parts = [gibbs(prior(name), seen[k : k + 1], generator=generators(0, 1, 0, [k])) for k in range(3)]
    assert torch.equal(torch.cat(parts), whole) and bool(whole.isfinite().all())
    if law == "quantised":
        assert bool(((whole - seen).abs() <= 0.05 + 1e-6)[seen < 1].all() and (whole >= 0.95 - 1e-6)[seen == 1].all())


@pytest.mark.parametrize("name", SDES)
def test_a_mean_count_is_not_below_zero(name):
    on = axis(name)
    y = torch.tensor([on.start - 0.3 if on.offset != 0 else -9.0, 0.2])
    found = PoissonObservation(1.0).confine(y, y, 0.1, on, shares)
    assert found.tolist() == pytest.approx([max(on.start, -9.0), 0.2])


def test_mean_and_deviation_are_those_of_the_draws():
    seen, gibbs = torch.full((2, 1, 3, 3), 0.3), SplitGibbs(GammaObservation(4), rounds=3)
    mean, deviation = gibbs.mean(prior("log"), seen, 4, generator=generators(0, 1, 0, [0, 1]))
    g = generators(0, 1, 0, [0, 1])
    draws = torch.stack([gibbs(prior("log"), seen, generator=g) for _ in range(4)])
    torch.testing.assert_close(mean, draws.mean(0))
    torch.testing.assert_close(deviation, draws.std(0))


@pytest.mark.parametrize("law, uniforms", [("gamma", 3), ("poisson", 3), ("quantised", 4), ("speckled", 6)])
@pytest.mark.parametrize("name", SDES)
def test_a_chain_waits_for_nothing_and_copies_its_observation_and_noise_alone(name, law, uniforms):
    r"""In three rounds: the uniform draws of the law, one normal draw for missing pixels, three of the sampler."""
    model = Denoiser(torch.nn.Conv2d(1, 1, 1), SDES[name]).to(DEVICE)
    model.network.forward = lambda z, condition, label: z
    seen = torch.full((2, 1, 4, 4), 0.5)
    for spy in (Spy(), Spy()):
        with spy:
            SplitGibbs(LAWS[law], rounds=3)(model, seen, generator=generators(0, 1, 0, [0, 1]))
    assert spy.waits == [] and spy.copies == [(tuple(seen.shape), torch.float32)] * (1 + uniforms + 3 + 9)


def test_rho_falls_and_stays():
    levels = SplitGibbs(GammaObservation(1), rounds=10, rho_max=0.8, rho_min=0.1).levels()
    assert levels[0] == 0.8 and levels[5:] == [0.1] * 5
    assert [b / a for a, b in pairwise(levels[:5])] == pytest.approx([(1 / 8) ** 0.2] * 4)


def test_what_cannot_be_drawn_is_refused():
    model, seen = prior("log"), torch.tensor([[0.3, 0.2]])
    with pytest.raises(ValueError, match=r"rho_min must be at most rho_max, got rho_min=0.5, rho_max=0.1"):
        SplitGibbs(GammaObservation(4), rho_max=0.1, rho_min=0.5)
    with pytest.raises(ValueError, match=r"rho_min and rho_max must lie between .*, got 0.05 to 9"):
        SplitGibbs(GammaObservation(4), rho_max=9.0)(model, seen)
    with pytest.raises(ValueError, match=r"the sampler must be stochastic, .* got DDIM"):
        SplitGibbs(GammaObservation(4), DDIM(3))(model, seen)
    model.least_s = 0.2
    with pytest.raises(ValueError, match=r"samples need a denoiser of all noise levels, .* from 0.2 on"):
        SplitGibbs(GammaObservation(4))(model, seen)
    model.least_s = 0.0
    with pytest.raises(ValueError, match=r"rounds must be a whole number >= 2"):
        SplitGibbs(GammaObservation(4), rounds=1)
    for bad in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match=r"intensities must be finite and > 0 .* got 1 of 2 .*Quantised"):
            SplitGibbs(GammaObservation(4))(model, torch.tensor([[0.3, bad]]))
    with pytest.raises(ValueError, match=r"whole multiples >= 0 of gain=0.1 .* got 1 of 2 .*\(first: 2.5 times"):
        SplitGibbs(PoissonObservation(0.1))(model, torch.tensor([[0.3, 0.25]]))
    for bad in (1.2, 0.25, -0.1):
        with pytest.raises(ValueError, match=r"observed values must be low=0 \+ k step=0.1 up to high=1"):
            SplitGibbs(Quantised(0.1))(model, torch.tensor([[0.3, bad]]))
    with pytest.raises(ValueError, match="step must be at most high - low"):
        Quantised(2.0)
    with pytest.raises(ValueError, match="low must be >= 0 for intensities with speckle"):
        Quantised(0.1, -1.0, looks=4)
