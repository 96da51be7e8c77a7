r"""Guidance and clamping as denoisers: identities, and the laws they sample in closed form."""

import pytest
import torch
from oracles import gaussian, gaussian_flow, standard_mixture

from scoregen.models import MLP, Autoguidance, Clamp, ClassifierFreeGuidance, Denoiser
from scoregen.samplers import Heun
from scoregen.sde import EDM, Affine, GeometricBrownianMotion, Multiplicative

COVARIANCE = torch.tensor([[0.2, 0.05], [0.05, 0.1]]).double()
MEANS = torch.tensor([[0.5, -0.3], [-0.8, 0.4], [0.1, 0.2]]).double()


class Labelled:
    r"""Label 0, 1 and "no label" (-1): normal laws of one covariance; counts its calls."""

    num_classes = 2

    def __init__(self, sde=None) -> None:
        self.parts = [gaussian(mean, COVARIANCE, sde) for mean in MEANS]
        self.sde, self.calls = self.parts[0].sde, 0

    def __call__(self, u, s, label=None):
        self.calls += 1
        label = torch.full((len(u),), -1) if label is None else label
        each = torch.stack([part(u, s) for part in self.parts])
        return each[label, torch.arange(len(u))]


@pytest.fixture
def state() -> torch.Tensor:
    return torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABEL = torch.tensor([0, 1, 0, 1, 1, 0])


def test_scale_one_is_the_identity_at_one_call(state):
    denoiser = Labelled()
    assert torch.equal(ClassifierFreeGuidance(denoiser, 1.0)(state, 0.5, LABEL), denoiser(state, 0.5, LABEL))
    assert denoiser.calls == 2
    good, bad = standard_mixture(), gaussian(MEANS[0], COVARIANCE)
    assert torch.equal(Autoguidance(good, bad, 1.0)(state, 0.5), good(state, 0.5))


def test_scale_zero_is_the_weaker_denoiser(state):
    denoiser = Labelled()
    torch.testing.assert_close(ClassifierFreeGuidance(denoiser, 0.0)(state, 0.5, LABEL), denoiser(state, 0.5))


@pytest.mark.parametrize("scale", [-0.5, 0.5, 2.0, 7.5])
def test_guided_score_is_that_of_the_product_of_the_smoothed_laws(state, scale):
    good, bad, s = standard_mixture(), gaussian(MEANS[0], COVARIANCE), 0.7
    u = state.clone().requires_grad_()
    log_product = scale * good.log_prob(u, s) + (1 - scale) * bad.log_prob(u, s)
    (score,) = torch.autograd.grad(log_product.sum(), u)
    torch.testing.assert_close(Autoguidance(good, bad, scale)(state, s), state + s**2 * score)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guided_sampling_of_normal_laws_of_equal_covariance_ends_in_their_product(state, scale):
    # N(m0 + scale (m1 - m0), S) is proportional to N(m1, S)^scale N(m0, S)^(1 - scale): an exact law with an exact flow
    denoiser = Labelled(EDM(0.01, 10.0))
    label = torch.ones(6).long()
    start = MEANS[1] + 3 * state
    sampled = Heun(256)(ClassifierFreeGuidance(denoiser, scale), start=(start, denoiser.sde.time_of(3.0)), label=label)
    mean = MEANS[2] + scale * (MEANS[1] - MEANS[2])
    torch.testing.assert_close(sampled, gaussian_flow(mean, COVARIANCE, start, 3.0, 0.0), atol=3e-4, rtol=0)


def test_both_branches_come_from_one_call(state):
    denoiser = Labelled()
    guided = ClassifierFreeGuidance(denoiser, 2.5)(state, 0.5, LABEL)
    assert denoiser.calls == 1
    strong, weak = denoiser(state, 0.5, LABEL), denoiser(state, 0.5)
    torch.testing.assert_close(guided, weak + 2.5 * (strong - weak))


def test_interval_limits_guidance_sample_by_sample(state):
    denoiser = Labelled()
    guided = ClassifierFreeGuidance(denoiser, 3.0, interval=(0.2, 1.0))
    s = torch.tensor([0.1, 0.2, 0.5, 1.0, 1.1, 80.0], dtype=torch.float64)
    plain, full = denoiser(state, s, LABEL), ClassifierFreeGuidance(denoiser, 3.0)(state, s, LABEL)
    inside = torch.tensor([False, True, True, True, False, False])[:, None]
    torch.testing.assert_close(guided(state, s, LABEL), torch.where(inside, full, plain))
    denoiser.calls = 0
    assert torch.equal(guided(state, 2.0, LABEL), denoiser(state, 2.0, LABEL))
    assert denoiser.calls == 2


def test_without_labels_there_is_nothing_to_guide(state):
    denoiser = Labelled()
    assert torch.equal(ClassifierFreeGuidance(denoiser, 4.0)(state, 0.5), denoiser(state, 0.5))


def test_wrappers_are_denoisers_with_scores_and_labels():
    network = Denoiser(MLP((2,), width=16, depth=1, num_classes=3), EDM(0.01, 10.0, chart=Affine(2.0, -1.0)))
    guided = Clamp(ClassifierFreeGuidance(network, 2.0), -5.0, 5.0)
    assert guided.num_classes == 3 and guided.sde is network.sde
    x, t = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), 0.5
    label = torch.tensor([0, 1, 2, -1])
    u, s = network.sde.to_u(x, t)
    torch.testing.assert_close(guided.score(x, t, label), (guided(u, s, label) - u) / s.float() ** 2)
    assert sum(p.numel() for p in guided.parameters()) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    "sde",
    [EDM(), EDM(chart=Affine(2.0, -1.0)), GeometricBrownianMotion(offset=0.5), Multiplicative(EDM(), 1.0, (0.0, 1.0))],
    ids=["identity", "affine", "gbm", "standardised"],
)
def test_clamp_acts_in_data_units(sde):
    x = torch.linspace(-0.4, 2.0, 25).double()[:, None]
    identity = gaussian(torch.zeros(1).double(), torch.eye(1).double() * 1e12, sde)
    clamped = sde.from_chart(Clamp(identity, 0.1, 0.9)(sde.to_chart(x), 1e-3))
    torch.testing.assert_close(clamped, x.clamp(0.1, 0.9))
    torch.testing.assert_close(sde.from_chart(Clamp(identity, None, 0.9)(sde.to_chart(x), 1e-3)), x.clamp(max=0.9))


def test_bad_arguments_are_refused():
    denoiser = Labelled()
    with pytest.raises(ValueError, match="scale must be finite"):
        ClassifierFreeGuidance(denoiser, float("nan"))
    with pytest.raises(ValueError, match="0 <= s_low < s_high"):
        Autoguidance(denoiser, denoiser, 2.0, interval=(1.0, 0.5))
    with pytest.raises(ValueError, match="low must be < high"):
        Clamp(denoiser, 1.0, 0.0)
    with pytest.raises(ValueError, match="x \\+ offset must be > 0"):
        Clamp(gaussian(MEANS[0], COVARIANCE, GeometricBrownianMotion()), 0.0, 1.0)
