r"""Flow maps in samplers, wrappers and encodings: one jump is exact, and what takes no next level works as before."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import Independent, NormalFlowMap, affine_law

from scoregen.metrics.reconstruction import reconstruction_error
from scoregen.models import MLP, Autoguidance, Clamp, ClassifierFreeGuidance, Denoiser
from scoregen.rng import generator
from scoregen.samplers import (
    DDIM,
    Ancestral,
    Consistency,
    EulerMaruyama,
    ExponentialABM,
    FlowTime,
    Heun,
    Jumps,
    Levels,
    decode,
    encode,
    interpolate,
    log_likelihood,
)
from scoregen.sde import EDM, VE, VP, GeometricBrownianMotion, GeometricOU, Multiplicative, RectifiedFlow, SubVP

MEAN, VAR = 0.3, 0.25
EXACT = NormalFlowMap(MEAN, VAR)


def start(n=5):
    return MEAN + math.sqrt(VAR + 80.0**2) * torch.randn(n, 2, generator=generator(0), dtype=torch.float64)


@pytest.mark.parametrize("levels", [[80.0], [80.0, 0.7], [80.0, 9.0, 2.0, 0.3, 0.004]], ids=["1", "2", "5"])
def test_any_number_of_jumps_ends_where_the_path_ends(levels):
    u = start()
    found = DDIM(grid=Levels(levels))(EXACT, start=(u, 1.0))
    wanted = MEAN + math.sqrt(VAR / (VAR + 80.0**2)) * (u - MEAN)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    # of the mean E[y_0 | u] alone the same steps are far off
    assert (DDIM(grid=Levels(levels))(Independent(MEAN, VAR), start=(u, 1.0)) - wanted).abs().max() > 0.05


@pytest.mark.parametrize("sampler", [Consistency, Ancestral, lambda steps: DDIM(steps, eta=0.5)])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_jumps_and_fresh_noise_keep_the_law(sampler, steps):
    r"""Every share of fresh noise: the jump leads to the level from which it is added."""
    sampler = sampler(steps)
    grid = sampler.grid(EXACT.sde, steps)
    mean, var = affine_law(sampler, EXACT, grid, MEAN, VAR + 80.0**2)
    assert (mean, var) == pytest.approx((MEAN, VAR), rel=1e-12)


PROCESSES = [
    VP(),
    SubVP(),
    VE(),
    EDM(),
    RectifiedFlow(),
    GeometricBrownianMotion(0.8),
    GeometricOU(),
    Multiplicative(VE(0.01, 20.0), offset=0.0),
]


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("t", [0.2, 0.9])
def test_one_jump_is_the_flow_of_every_process(sde, t):
    r"""y_0 = m + (y_t - alpha m - shift) sqrt(v)/sqrt(alpha^2 v + sigma^2), in the chart of the process."""
    alpha, sigma, shift = (float(f(torch.tensor(t, dtype=torch.float64))) for f in (sde.alpha, sde.sigma, sde.shift))
    y = alpha * MEAN + shift + torch.tensor([[-0.8, 0.1], [1.3, -0.2]], dtype=torch.float64) * sigma
    wanted = MEAN + (y - alpha * MEAN - shift) * math.sqrt(VAR / (alpha**2 * VAR + sigma**2))
    found = DDIM(1)(NormalFlowMap(MEAN, VAR, sde), start=(sde.from_chart(y), t))
    torch.testing.assert_close(found, sde.from_chart(wanted), rtol=1e-12, atol=1e-12)


def test_it_is_the_prediction_of_pixel_meanflow():
    r"""In the coordinates z = (1 - t) y_0 + t eps: x = z_t - t V with the mean velocity V of the jump from t to r."""
    t, r = 0.8, 0.3
    z = torch.tensor([[0.4], [-1.1]], dtype=torch.float64)
    deviation = [math.sqrt((1 - a) ** 2 * VAR + a**2) for a in (t, r)]
    z_r = (1 - r) * MEAN + deviation[1] / deviation[0] * (z - (1 - t) * MEAN)
    found = EXACT(z / (1 - t), t / (1 - t), next_s=r / (1 - r))
    torch.testing.assert_close(found, z - t * (z - z_r) / (t - r), rtol=0, atol=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_jumps_encode_and_decode_exactly(steps):
    x = MEAN + 0.5 * torch.randn(4, 2, generator=generator(0), dtype=torch.float64)
    u = encode(EXACT, x, solver=Jumps(steps))
    wanted = MEAN + math.sqrt((VAR + 80.0**2) / (VAR + 0.002**2)) * (x - MEAN)
    torch.testing.assert_close(u, wanted, rtol=1e-11, atol=1e-9)
    torch.testing.assert_close(decode(EXACT, u, solver=Jumps(steps)), x, rtol=0, atol=1e-10)
    ends = interpolate(EXACT, x[:2], x[2:], steps=2, solver=Jumps(steps))
    torch.testing.assert_close(ends, x.unflatten(0, (2, 2)), rtol=0, atol=1e-10)


class Bent:
    r"""A flow map that is not linear and takes its time: u_r = r/s-wise asinh, with the jump back in closed form."""

    sde, takes_next, num_classes, sigma_data = EDM(), True, None, 0.5

    def __call__(self, u, s, label=None, *, next_s=None):
        r = 0.0 if next_s is None else float(next_s)
        return (self.jump(u, float(s), r) - r / float(s) * u) / (1 - r / float(s))

    @staticmethod
    def jump(u, s, r):
        slope = math.sqrt((0.25 + r * r) / (0.25 + s * s))
        return slope * (u + 0.1 * s * torch.tanh(u / s))  # slopes from slope to 1.1 slope

    @staticmethod
    def back(u, s, r):
        v = u
        for _ in range(200):
            v = u / math.sqrt((0.25 + s * s) / (0.25 + r * r)) - 0.1 * r * torch.tanh(v / r)
        return v


def test_a_jump_to_more_noise_is_the_inverse_of_the_jump_back():
    r"""By Newton steps whose error falls tenfold: the slope of the map is 1 to 1.1 times that of normal data."""
    model, u = Bent(), torch.tensor([[0.4, -1.1]], dtype=torch.float64)
    exact = Bent.back(u, 0.1, 3.0)
    torch.testing.assert_close(Bent.jump(exact, 3.0, 0.1), u)
    errors = [(Jumps(1, corrections=k)(model, u, 0.1, 3.0) - exact).abs().max().item() for k in (1, 2, 3)]
    assert errors[0] < 0.1 * exact.abs().max().item()
    assert all(0 < after < 0.11 * before for before, after in pairwise(errors))
    own = Jumps(1, corrections=0)(model, u, 0.1, 3.0)  # the map's own jump there, which this one was not made for
    torch.testing.assert_close(own, Bent.jump(u, 0.1, 3.0))


def test_a_wrapper_has_the_deviation_of_the_data_of_its_denoiser():
    denoiser = Denoiser(MLP((2,), 8, 1, next_level=True), EDM(), sigma_data=0.8)
    assert Clamp(denoiser).sigma_data == 0.8
    assert not hasattr(Clamp(Independent(MEAN, VAR)), "sigma_data")


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_levels_of_flow_maps_are_equal_steps_of_flow_time(steps):
    levels = FlowTime(0.8)(EDM(), steps)
    assert levels[0] == 80.0 and levels[-1] == 0.0 and len(levels) == steps + 1
    tau = levels / (0.8 + levels)
    torch.testing.assert_close(tau.diff(), torch.full((steps,), -float(tau[0]) / steps, dtype=torch.float64))


def test_jumps_of_a_denoiser_are_those_of_ddim():
    oracle, x = Independent(MEAN, VAR), torch.tensor([[0.2]], dtype=torch.float64)
    errors = [
        float((encode(oracle, x, s=2.0, solver=Jumps(k)) - encode(EXACT, x, s=2.0, solver=Jumps())).abs())
        for k in (64, 128)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


class Told(NormalFlowMap):
    r"""Remembers what it was told."""

    def __init__(self, mean=MEAN):
        super().__init__(mean, VAR)
        self.told = []

    def __call__(self, u, s, label=None, *, next_s=None):
        self.told.append(next_s)
        return super().__call__(u, s, label, next_s=next_s)


@pytest.mark.parametrize("sampler", [Heun(3), ExponentialABM(4), EulerMaruyama(3)])
def test_other_samplers_and_measures_see_the_denoiser(sampler):
    model, plain = Told(), Independent(MEAN, VAR)
    for call in (
        lambda d: sampler(d, (3, 2), generator=generator(1)),
        lambda d: log_likelihood(d, start() / 80, s_max=1.0).log_prob,
        lambda d: encode(d, start() / 80),
    ):
        assert (call(model) == call(plain)).all()
    assert set(model.told) == {None}


def test_wrappers_pass_the_next_level_on():
    u, s, r = start(), torch.full((5,), 80.0, dtype=torch.float64), torch.linspace(0, 40, 5, dtype=torch.float64)
    strong, weak, label = Told(1.0), Told(-1.0), torch.zeros(5, dtype=torch.long)
    assert torch.equal(Clamp(strong, -9.0, 9.0)(u, s, next_s=r), strong(u, s, next_s=r).clamp(-9, 9))
    strong.num_classes = 3
    guided = Autoguidance(strong, weak, 3.0)
    assert torch.equal(
        guided(u, s, next_s=r), weak(u, s, next_s=r) + 3 * (strong(u, s, next_s=r) - weak(u, s, next_s=r))
    )
    free = ClassifierFreeGuidance(strong, 3.0)
    torch.testing.assert_close(free(u, s, label, next_s=r), strong(u, s, next_s=r))  # the oracle has no labels
    assert torch.equal(strong.told[-2], torch.cat([r, r]))
    for model in (free, Clamp(strong), guided):
        assert model.takes_next
        strong.told.clear()
        DDIM(grid=Levels([80.0, 2.0]))(
            model, (3, 2), label=label[:3] if model is free else None, generator=generator(0)
        )
        assert strong.told == [2.0, 0.0]
    assert not Autoguidance(strong, Independent(0.0, VAR), 2.0).takes_next  # a mean and a jump do not mix


def test_guidance_that_does_not_act_passes_the_next_level_on():
    model, u, label, r = Told(), start(), torch.zeros(5, dtype=torch.long), 2.0
    model.num_classes = 3
    wanted = model(u, 80.0, next_s=r)
    free = [ClassifierFreeGuidance(model, 1.0), ClassifierFreeGuidance(model, 3.0, (0.1, 1.0))]
    for guided in (*free, Autoguidance(model, Told(-1.0), 1.0)):
        assert torch.equal(guided(u, 80.0, label, next_s=r), wanted)
    assert torch.equal(ClassifierFreeGuidance(model, 3.0)(u, 80.0, next_s=r), wanted)  # without a label


@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_jumps_go_by_the_levels_of_karras_with_the_label(rho):
    labels = []

    class Labelled(Told):
        def __call__(self, u, s, label=None, *, next_s=None):
            labels.append(label)
            return super().__call__(u, s, label, next_s=next_s)

    model, label = Labelled(), torch.tensor([1, 0])
    Jumps(3, rho)(model, torch.zeros(2, 1, dtype=torch.float64), 40.0, 0.01, label)
    inner = [(40.0 ** (1 / rho) + k / 3 * (0.01 ** (1 / rho) - 40.0 ** (1 / rho))) ** rho for k in (1, 2)]
    assert model.told == pytest.approx([*inner, 0.01], rel=1e-12)
    assert all(given is label for given in labels)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Jumps(0), "steps=0"),
        (lambda: Jumps(2, 0.0), "rho=0.0"),
        (lambda: Jumps(1, corrections=-1), "corrections=-1"),
        (lambda: FlowTime(-1.0), "c=-1.0"),
    ],
)
def test_bad_arguments_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_the_error_of_inversion_is_measured_by_jumps():
    x = torch.rand(2, 1, 8, 8, generator=generator(0), dtype=torch.float64)
    found = reconstruction_error(EXACT, x, solver=Jumps(2))
    assert (found.solver, found.calls) == ("Jumps(2)", 4)
    assert found.mse < 1e-18


def test_a_network_is_told_every_level_of_ddim_with_labels_and_without():
    model = Denoiser(MLP((2,), 8, 1, num_classes=3, next_level=True), EDM())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(len(parameter))) / 3)
    label, u = torch.tensor([0, 2, 1]), 80 * torch.randn(3, 2, generator=generator(1))
    for options in ({"label": label}, {}):
        found = DDIM(grid=Levels([80.0, 0.5]))(model, start=(u, 1.0), **options)
        first = model(u, 80.0, **options, next_s=0.5)
        u_m = first + 0.5 / 80 * (u - first)
        torch.testing.assert_close(found, model(u_m, 0.5, **options, next_s=0.0))
