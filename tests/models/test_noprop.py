r"""Label denoising with exact posteriors: what its samplers compute, and that blocks learn by themselves."""

import math
from itertools import pairwise

import pytest
import torch
from noprop_parts import PATHS, SIGNS, exact, points, three_normals
from scipy.integrate import quad
from torch import nn

from scoregen.losses import FlowTime, FlowWeighting, LogUniform, NoiseWeighting
from scoregen.losses.noprop import snr_increments
from scoregen.models.noprop import even_levels
from scoregen.rng import generator
from scoregen.samplers import DDIM, Ancestral, ExponentialABM, Heun, UniformTime
from scoregen.samplers.base import Bound
from scoregen.sde import VE
from scoregen.smoothing import SampledLabels

each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def test_the_step_of_the_paper_is_ancestral_sampling():
    r"""z' = a D + b z + sqrt(c) eps of NoProp-DT, with alpha_bar of the cosine path, in u = z/sqrt(alpha_bar)."""
    path, eps = PATHS["cosine"], torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    x, _ = points(5)
    denoiser = exact(three_normals, 3, path=path).given(x)
    u = 3 * torch.randn(5, 3, generator=generator(2), dtype=torch.float64)
    for s, n in pairwise(UniformTime()(path, 10).tolist()[:-1]):
        bar, after = 1 / (1 + s**2), 1 / (1 + n**2)  # of z, of z'
        alpha = bar / after
        a = math.sqrt(after) * (1 - alpha) / (1 - bar)
        b, c = math.sqrt(alpha) * (1 - after) / (1 - bar), (1 - after) * (1 - alpha) / (1 - bar)
        z = a * denoiser(u, s) + b * math.sqrt(bar) * u + math.sqrt(c) * eps
        ours, _ = Ancestral(10).step(Bound(denoiser, None), u, s, n, lambda like: eps, None)
        torch.testing.assert_close(ours, z / math.sqrt(after), rtol=0, atol=1e-13)


def smooth(s):
    r"""An error that falls as the label shows."""
    return s**2 / (1 + s**2)


@each_path
def test_the_weights_of_dt_are_a_riemann_sum_of_the_growth_of_the_snr(path):
    levels = even_levels(path, 20_000)
    weights = snr_increments(levels)[:-1]
    total, _ = quad(lambda log_s: 2 * math.exp(-2 * log_s), math.log(path.s_min), math.log(path.s_max))
    assert float(weights.sum()) == pytest.approx(total, rel=1e-6)
    s = torch.tensor(levels, dtype=torch.float64)
    between = (s[1:] * s[:-1]).sqrt()
    wanted, _ = quad(lambda e: 2 * math.exp(-2 * e) * smooth(math.exp(e)), math.log(path.s_min), math.log(path.s_max))
    assert float((weights * smooth(between)).sum()) == pytest.approx(wanted, rel=2e-2)


def test_the_last_block_weighs_as_if_its_levels_went_on():
    torch.testing.assert_close(snr_increments((4.0, 2.0, 1.0)), torch.tensor([3 / 16, 3 / 4, 3.0]).double())


@each_path
@pytest.mark.parametrize(
    ("law", "weighting", "density"),
    [
        (LogUniform(), NoiseWeighting(), lambda s: s**-3),  # CT: half of 2 s^-3 ds
        (FlowTime(), FlowWeighting(), lambda s: s**-2),  # FM
    ],
    ids=["ct", "fm"],
)
def test_level_law_times_weighting_is_the_weight_of_the_paper(path, law, weighting, density):
    q = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    s = law(path, q)
    low, high = path.s_min, path.s_max
    scale = math.log(high / low) if isinstance(law, LogUniform) else high / (1 + high) - low / (1 + low)
    found = scale * float((weighting(s, 1.0) * smooth(s)).mean())
    wanted, _ = quad(lambda e: density(math.exp(e)) * math.exp(e) * smooth(math.exp(e)), math.log(low), math.log(high))
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("steps", [1, 10])
def test_from_zero_the_classifier_is_bayes(steps):
    x, _ = points()
    assert bool((exact(three_normals, 3, steps)(x).argmax(1) == three_normals(x).argmax(1)).all())


def test_the_steps_of_the_classifier_are_ddim_from_zero():
    classifier, (x, _) = exact(three_normals, 3, 7, path=VE(2.0, 20.0, chart=SIGNS)), points(20)
    grid = UniformTime()(classifier.process, 7)
    assert classifier.levels == pytest.approx(tuple(grid.tolist()[:-1]))
    u = DDIM(7).integrate(Bound(classifier.given(x), None), torch.zeros(20, 3).double(), grid, torch.zeros_like)
    torch.testing.assert_close(classifier(x).softmax(1) @ classifier.embedding, u, rtol=0, atol=1e-12)


def test_from_noise_a_converged_sampler_draws_from_the_posterior():
    r"""400 draws of 50 points, 100 free frequencies, within 4.5 standard errors: false-alarm rate 1e-3."""
    x, _ = points(50)
    labels = Heun(18)(exact(three_normals, 3).given(x.repeat(400, 1)), (20_000, 3), generator=generator(3))
    found = nn.functional.one_hot(labels.argmax(1), 3).reshape(400, 50, 3).double().mean(0)
    p = three_normals(x).exp()
    z = ((found - p) / (p * (1 - p) / 400).sqrt())[p * 400 > 5]
    assert len(z) > 80 and float(z.abs().max()) < 4.5
    assert 0.7 < float(z.square().mean().sqrt()) < 1.3


def test_so_its_accuracy_is_below_that_of_bayes():
    r"""Right with probability sum_k p_k^2, within 3 standard errors: a draw, which is no mistake to mend."""
    x, label = points()
    p = three_normals(x).exp()
    gibbs, bayes = float(p.square().sum(1).mean()), float(p.amax(1).mean())
    drawn = SampledLabels(exact(three_normals, 3), Heun(18))(x).argmax(1)
    found = float((drawn == label).double().mean())
    assert abs(found - gibbs) < 3 * math.sqrt(gibbs * (1 - gibbs) / len(x)) < bayes - gibbs
    voted = SampledLabels(exact(three_normals, 3), DDIM(10), votes=16)(x).argmax(1)
    assert float((voted == p.argmax(1)).double().mean()) > 0.92 > float((drawn == p.argmax(1)).double().mean())


SAMPLERS = {"ddim 5": DDIM(5), "ddim 20": DDIM(20), "heun 10": Heun(10), "abm 10": ExponentialABM(10)}


@pytest.mark.parametrize("classes", [2, 6, 50])
@pytest.mark.parametrize("name", SAMPLERS)
def test_from_zero_deterministic_samplers_end_at_the_most_likely_class(name, classes):
    r"""The lemma: embeddings of equal norms and inner products keep the order of p along each step."""
    log_p = torch.randn(500, classes, generator=generator(4), dtype=torch.float64).log_softmax(1)
    classifier, sampler = exact(lambda x: x, classes), SAMPLERS[name]
    grid = sampler.grid(classifier.process, sampler.steps)
    bound = Bound(classifier.given(log_p), None)
    u = sampler.integrate(bound, torch.zeros_like(log_p), grid, torch.zeros_like)
    assert bool((u.argmax(1) == log_p.argmax(1)).all())


def test_embeddings_of_unequal_norms_break_that():
    log_p = torch.randn(2000, 6, generator=generator(4), dtype=torch.float64).log_softmax(1)
    embedding = torch.diag(torch.linspace(0.5, 2.0, 6, dtype=torch.float64))
    found = exact(lambda x: x, 6, 10, embedding)(log_p).argmax(1)
    assert 0.5 < float((found == log_p.argmax(1)).double().mean()) < 0.9
