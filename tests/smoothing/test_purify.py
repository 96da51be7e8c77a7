r"""Denoised smoothing with exact Gaussian denoisers."""

import math

import pytest
import torch
from scipy import stats

from scoregen.rng import randn
from scoregen.samplers import DDIM, RK4, AdaptiveFlow, Heun, LogLinear
from scoregen.sde import EDM, VE, VP, Affine, Compose, Log
from scoregen.smoothing import (
    Gaussian,
    Laplace,
    LogNormal,
    LogNormalGain,
    PurifiedClassifier,
    SmoothedClassifier,
)
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.dataset import certify_dataset
from scoregen.smoothing.purify import chart_slope, check_chart, fingerprints
from scoregen.smoothing.results import fingerprint
from tests.oracles import gaussian, standard_mixture

SIGMA = 0.3
PROCESSES = {
    "vp": VP(chart=Affine(2.0, -1.0)),
    "edm": EDM(0.002, 80.0, chart=Affine(2.0, -1.0)),
    "ve, identity": VE(0.01, 20.0),
}


def answer(x):
    return torch.stack((x[:, 0], x[:, 1], -x.sum(1)), 1)


def noisy(n=64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.5 + 0.5


@pytest.mark.parametrize("name", PROCESSES)
def test_one_shot_purification_is_the_posterior_mean_at_the_noise_of_the_input(name):
    sde = PROCESSES[name]
    slope = sde.chart.scale
    denoiser = standard_mixture(sde)
    f = PurifiedClassifier(answer, denoiser, DDIM(steps=1), SIGMA)
    x = noisy()
    # u = chart(x) carries noise slope * sigma; the denoiser's answer goes back to data units
    expected = sde.chart.inverse(denoiser(sde.chart.forward(x), slope * SIGMA))
    torch.testing.assert_close(f.purify(x), expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(f(x), answer(expected), rtol=1e-7, atol=1e-8)
    assert float(sde.sigma(f.time) / sde.alpha(f.time)) == pytest.approx(slope * SIGMA, rel=1e-9)


def test_purification_removes_as_much_noise_as_theory_says():
    # x ~ N(m, v) + sigma eps: the posterior mean errs by v sigma^2 / (v + sigma^2), 6 standard errors allowed
    mean, v = torch.tensor([0.2, 0.6], dtype=torch.float64), 0.04
    sde = VP(chart=Affine(2.0, -1.0))
    denoiser = gaussian(2 * mean - 1, 4 * v * torch.eye(2, dtype=torch.float64), sde)
    f = PurifiedClassifier(answer, denoiser, DDIM(steps=1), SIGMA)
    generator = torch.Generator().manual_seed(0)
    clean = mean + v**0.5 * torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    x = clean + SIGMA * torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    error = (f.purify(x) - clean).square().mean()
    assert float(error) == pytest.approx(v * SIGMA**2 / (v + SIGMA**2), rel=6 * math.sqrt(2 / 40_000))


@pytest.mark.parametrize("average", [2, 4])
def test_a_denoiser_of_means_sees_the_noise_of_means(average):
    r"""The mean of k x k pixels has k times less noise; what comes back is enlarged bilinearly."""
    sde = VP(chart=Affine(2.0, -1.0))
    side = 8 // average
    law = gaussian(torch.zeros(side**2, dtype=torch.float64), torch.eye(side**2, dtype=torch.float64), sde)
    asked = []

    class Images:
        def __init__(self):
            self.sde = sde

        def __call__(self, u, s, label=None):
            asked.append(float(s))
            return law(u.flatten(1), s).view(u.shape)

    f = PurifiedClassifier(answer, Images(), DDIM(steps=1), SIGMA, average=average)
    clean = torch.full((400, 1, 8, 8), 0.3, dtype=torch.float64)
    x = clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = f.purify(x)
    assert asked[0] == pytest.approx(2 * SIGMA / average, rel=1e-9)
    means = x.unfold(2, average, average).unfold(3, average, average).mean((4, 5))
    expected = sde.chart.inverse(law(sde.chart.forward(means).flatten(1), 2 * SIGMA / average).view(means.shape))
    torch.testing.assert_close(found, torch.nn.functional.interpolate(expected, 8, mode="bilinear"))
    n = means.numel()  # the noise of the means is as stated, within 5 standard errors of a standard deviation
    assert float(means.std()) == pytest.approx(SIGMA / average, rel=5 / math.sqrt(2 * n))
    with pytest.raises(ValueError, match=f"sides that {average} divides"):
        f.purify(torch.rand(1, 1, 9, 9))


def test_log_normal_noise_before_a_log_chart():
    sde = VE(0.01, 20.0, chart=Compose(Log(0.5), Affine(1.7, 0.4)))
    slope = chart_slope(sde)
    assert slope == pytest.approx(1.7, rel=1e-9)
    denoiser = standard_mixture(sde)
    f = PurifiedClassifier(answer, denoiser, DDIM(steps=1), SIGMA)
    x = noisy().abs() + 0.1
    expected = sde.from_chart(denoiser(sde.to_chart(x), slope * SIGMA))
    torch.testing.assert_close(f.purify(x), expected, rtol=1e-7, atol=1e-9)
    # that noise ratio is the one that LogNormal noise has in the chart
    one = torch.full((1,), 0.7, dtype=torch.float64)
    draws = LogNormal(SIGMA, offset=0.5).sample(one, 50_000, torch.Generator().manual_seed(0))
    assert float(sde.to_chart(draws).std()) == pytest.approx(slope * SIGMA, rel=0.02)


@pytest.mark.parametrize(
    ("chart", "fits", "others"),
    [
        (Affine(2.0, -1.0), Gaussian(0.3), [LogNormal(0.3), LogNormal(0.3, offset=0.5), Laplace(0.3)]),
        (Log(0.0), LogNormal(0.3), [Gaussian(0.3), LogNormal(0.3, offset=0.5)]),
        (Compose(Log(0.0), Affine(1 / 0.7, -11 / 0.7)), LogNormal(0.3), [LogNormal(0.3, offset=1e-3)]),  # x near 6e4
        (
            Compose(Log(0.5), Affine(1.7, 0.4)),
            LogNormal(0.3, offset=0.5),
            [Gaussian(0.3), LogNormal(0.3, offset=0.4), LogNormal(0.3, offset=0.5, drift=0.1), LogNormalGain(0.3)],
        ),
    ],
    ids=["affine", "log", "standardised log", "log with offset"],
)
def test_the_noise_must_be_that_of_the_process(chart, fits, others):
    check_chart(fits, VE(0.01, 20.0, chart=chart))
    for other in others:
        with pytest.raises(ValueError, match=r"noise must be what the denoiser's process adds, .* got"):
            check_chart(other, VE(0.01, 20.0, chart=chart))


def test_certificate_of_a_purified_classifier_is_that_of_its_exact_half_space():
    # Gaussian data: D is affine in u, so f is a half-space of the noisy input and its radius is known
    variance = 0.25
    sde = EDM(chart=Affine(2.0, -1.0))
    denoiser = gaussian(torch.zeros(2, dtype=torch.float64), 4 * variance * torch.eye(2, dtype=torch.float64), sde)

    def above_half(x):
        return torch.stack((x[:, 0] - 0.5, 0.5 - x[:, 0]), 1)

    f = PurifiedClassifier(above_half, denoiser, DDIM(steps=1), SIGMA)
    x = torch.tensor([[0.9, 0.3], [0.2, 0.3]], dtype=torch.float64)
    certificates = SmoothedClassifier(f.eval(), Gaussian(SIGMA), 2).certify(
        x, n=4000, method="fixed", generator=torch.Generator().manual_seed(0)
    )
    for certificate, label, distance in zip(certificates, (0, 1), (0.4, 0.3), strict=True):
        assert certificate.label == label
        p = stats.norm.cdf(distance / SIGMA)
        z = (int(certificate.counts[label]) - 4000 * p) / math.sqrt(4000 * p * (1 - p))
        assert abs(z) < 4  # false-alarm rate 6e-5 each
        assert 0.85 * distance < certificate.radius < distance


class Jitter:
    r"""A sampler that only adds its noise."""

    def __call__(self, denoiser, start, generator):
        return start[0] + randn(start[0].shape, generator, start[0].dtype)


def test_a_sampler_that_draws_nothing_costs_no_key(monkeypatch):
    monkeypatch.setattr("scoregen.smoothing.purify.fingerprints", pytest.fail)
    f = PurifiedClassifier(answer, standard_mixture(VE(0.01, 20.0)), DDIM(steps=2), SIGMA)
    assert f.purify(noisy(3)).shape == noisy(3).shape


def test_a_random_purification_is_a_function_of_its_input():
    f = PurifiedClassifier(answer, standard_mixture(VE(0.01, 20.0)), Jitter(), SIGMA)
    x = noisy(8)
    together = f.purify(x)
    alone = torch.cat([f.purify(x[i : i + 1]) for i in reversed(range(8))]).flip(0)
    assert torch.equal(together, alone)
    assert not torch.equal(together, f.purify(x, vote=1))
    assert not torch.equal(together, PurifiedClassifier(answer, f.denoiser, Jitter(), SIGMA, seed=1).purify(x))
    jitter = f.purify(noisy(4000)) - noisy(4000)
    assert stats.kstest(jitter.flatten().numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_fingerprints_tell_inputs_apart(dtype):
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    assert len(set(fingerprints(x).tolist())) == len({tuple(row) for row in x.tolist()})
    moved = x[:1].clone()
    moved[0, 2] = torch.nextafter(moved[0, 2].float(), torch.tensor(9.0)) if dtype == torch.float32 else moved[0, 2] * 2
    assert fingerprints(moved) != fingerprints(x[:1])
    assert fingerprints(x[:1].flip(1)) != fingerprints(x[:1])


def test_several_purifications_vote():
    f = PurifiedClassifier(answer, standard_mixture(VE(0.01, 20.0)), Jitter(), SIGMA, votes=9)
    x = noisy(32)
    single = torch.stack([answer(f.purify(x, vote)).argmax(1) for vote in range(9)])
    votes = torch.stack([(single == k).sum(0) for k in range(3)], 1)
    won = votes.gather(1, f(x).argmax(1, keepdim=True))[:, 0]
    assert torch.equal(won, votes.max(1).values)


def test_a_data_set_is_certified_before_a_log_chart(tmp_path):
    r"""Also what tells the classifier from others is asked where the chart is defined."""
    f = PurifiedClassifier(answer, standard_mixture(VE(0.01, 20.0, chart=Log(0.1))), DDIM(steps=1), SIGMA)
    noise, x = LogNormal(SIGMA, offset=0.1), torch.tensor([0.5, 0.4])
    method = make_method("ladder", noise, n=200)
    found = certify_dataset(SmoothedClassifier(f.eval(), noise, 3), [(x, 0)], [0], method, tmp_path, seed=0)
    assert found.complete and sum(found.records[0]["counts"]) > 0


def test_fingerprint_of_a_purifier_follows_its_sampler_and_a_plain_function():
    denoiser = standard_mixture(EDM(chart=Affine(2.0, -1.0)))

    def purified(sampler, function=answer):
        return fingerprint(PurifiedClassifier(function, denoiser, sampler, 0.3))

    assert purified(Heun(4)) == purified(Heun(4))
    others = [purified(Heun(4, churn=3.0)), purified(Heun(4, LogLinear())), purified(Heun(4), noisy)]
    assert len({purified(Heun(4)), *others}) == 4


def test_several_steps_also_end_clean():
    denoiser = standard_mixture(EDM(chart=Affine(2.0, -1.0)))
    f = PurifiedClassifier(answer, denoiser, Heun(steps=8), SIGMA)
    clean = (denoiser.sample(500, torch.Generator().manual_seed(0)) + 1) / 2
    x = clean + SIGMA * torch.randn(500, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_density = denoiser.log_prob(2 * f.purify(x) - 1)
    # flow samples follow the data law: their mean log-density is the data's, within 5 standard errors
    reference = denoiser.log_prob(2 * clean - 1)
    assert abs(float(log_density.mean() - reference.mean())) < 5 * float(reference.std()) * math.sqrt(2 / 500)


def test_bad_purifiers_are_refused():
    denoiser = standard_mixture(VP(chart=Affine(2.0, -1.0)))
    with pytest.raises(ValueError, match="sigma must be > 0 and finite, got sigma=0"):
        PurifiedClassifier(answer, denoiser, DDIM(steps=1), 0.0)
    with pytest.raises(ValueError, match="s must lie between"):
        PurifiedClassifier(answer, standard_mixture(VE(0.01, 1.0)), DDIM(steps=1), 2.0)
    with pytest.raises(ValueError, match="votes must be a whole number"):
        PurifiedClassifier(answer, denoiser, DDIM(steps=1), 0.5, votes=0)
    with pytest.raises(ValueError, match="average must be 1 before a chart that is not affine, got average=2"):
        PurifiedClassifier(answer, standard_mixture(VE(0.01, 20.0, chart=Log(0.1))), DDIM(steps=1), 0.5, average=2)
    with pytest.raises(ValueError, match="sampler must purify each image by itself, got AdaptiveFlow"):
        PurifiedClassifier(answer, denoiser, AdaptiveFlow(), 0.5)
    PurifiedClassifier(answer, denoiser, AdaptiveFlow(solver=RK4()), 0.5)
    training = torch.nn.Sequential(torch.nn.Dropout())
    with pytest.raises(ValueError, match="evaluation mode"):
        SmoothedClassifier(PurifiedClassifier(training, denoiser, DDIM(steps=1), 0.5), Gaussian(0.5), 2)
