r"""diffusers at the edge: its schedulers on our denoisers, our samplers in its loops, its levels as a path."""

from functools import partial

import pytest
import torch
from oracles import standard_mixture

from scoregen.samplers import (
    DDIM,
    AdaptiveFlow,
    DiffusersSampler,
    ExponentialAB,
    Heun,
    Levels,
    PredictorCorrector,
    SamplerScheduler,
)
from scoregen.sde import DiscretePath, GeometricBrownianMotion

diffusers = pytest.importorskip("diffusers")
# diffusers hands tensors to numpy in a way that NumPy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def start_of(mixture, n: int = 32):
    s = mixture.sde.s_max
    t = mixture.sde.time_of(s)
    return mixture.sde.from_u(mixture.sample(n, torch.Generator().manual_seed(0), s), t), t


@pytest.mark.parametrize(
    ("scheduler", "ours", "tolerance"),
    [
        (partial(diffusers.EulerDiscreteScheduler), DDIM(18), 1e-5),
        (partial(diffusers.HeunDiscreteScheduler), Heun(18), 1e-12),
        (partial(diffusers.DPMSolverMultistepScheduler), ExponentialAB(18, damped=True), 1e-5),
        (partial(diffusers.DPMSolverMultistepScheduler, solver_type="heun"), ExponentialAB(18), 1e-5),
    ],
    ids=["euler-ddim", "heun", "2m-damped", "2m-exact"],
)
def test_schedulers_of_diffusers_do_what_our_samplers_do_on_the_same_levels(scheduler, ours, tolerance):
    mixture = standard_mixture()
    start = start_of(mixture)
    theirs = DiffusersSampler(scheduler(), 18)(mixture, start=start)
    torch.testing.assert_close(theirs, ours(mixture, start=start), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("scheduler", "bound"),
    [
        (diffusers.UniPCMultistepScheduler, 1e-3),
        (partial(diffusers.DPMSolverMultistepScheduler, solver_order=3), 1e-3),
        (diffusers.DPMSolverSinglestepScheduler, 8e-3),
        (diffusers.LMSDiscreteScheduler, 2e-3),
    ],
    ids=["unipc", "3m", "singlestep", "lms"],
)
def test_other_schedulers_converge_to_the_probability_flow(scheduler, bound):
    mixture = standard_mixture()
    start = start_of(mixture)
    exact = Heun(400)(mixture, start=start)
    error = (DiffusersSampler(scheduler(), 64)(mixture, start=start) - exact).square().mean().sqrt()
    assert error < bound


def test_a_class_is_as_good_as_an_instance_and_data_units_are_ours():
    mixture = standard_mixture(GeometricBrownianMotion(3.0, offset=0.2))
    start = start_of(mixture)
    x = DiffusersSampler(diffusers.HeunDiscreteScheduler, 12)(mixture, start=start)
    torch.testing.assert_close(x, Heun(12)(mixture, start=start), atol=1e-10, rtol=1e-10)
    assert bool((x > -0.2).all())


@pytest.mark.parametrize(
    ("scheduler", "calls"), [(diffusers.EulerDiscreteScheduler, 6), (diffusers.HeunDiscreteScheduler, 11)]
)
def test_calls_and_callbacks_are_those_of_the_method(scheduler, calls):
    mixture, levels, seen = standard_mixture(), [], []

    class Counted:
        sde = mixture.sde

        def __call__(self, u, s, label=None):
            levels.append(float(s))
            return mixture(u, s)

    sampler = DiffusersSampler(scheduler, 6)
    sampler(Counted(), start=start_of(mixture), callback=lambda i, n, u, last: seen.append((i, float(n))))
    assert len(levels) == calls
    assert seen == list(enumerate(sampler.grid(mixture.sde, 6)[1:].tolist()))


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.EDMEulerScheduler,
        diffusers.EDMDPMSolverMultistepScheduler,
        partial(diffusers.DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++"),
        diffusers.DDIMScheduler,
        diffusers.FlowMatchEulerDiscreteScheduler,
    ],
    ids=["edm-euler", "edm-dpm", "draws-noise", "no-sigmas", "flow-matching"],
)
def test_unfit_schedulers_are_refused_at_construction(scheduler):
    state = torch.get_rng_state()
    with pytest.raises(TypeError, match="scheduler must be deterministic and take prediction_type='sample' and sigmas"):
        DiffusersSampler(scheduler())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_adaptive_predictor_is_refused_at_its_first_unforeseen_call():
    path = DiscretePath(torch.linspace(0.9999**0.5, 0.005**0.5, 1000, dtype=torch.float64) ** 2)
    scheduler = SamplerScheduler(PredictorCorrector(4, predictor=AdaptiveFlow(1e-3)), path, "sample")
    x = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    with pytest.raises(
        TypeError, match="fixed list of calls, got PredictorCorrector, which asks for an unforeseen one"
    ):
        for t in scheduler.timesteps:
            s2 = float(path.noise_ratio(float(t) / 999)) ** 2
            x = scheduler.step(0.25 / (0.25 + s2) * x * (1 + s2) ** 0.5, t, x).prev_sample


def test_time_travel_is_refused():
    mixture = standard_mixture()
    sampler = DiffusersSampler(diffusers.EulerDiscreteScheduler, grid=Levels([10.0, 1.0, 2.0, 0.5]))
    with pytest.raises(ValueError, match="must decrease"):
        sampler(mixture, start=start_of(mixture))
