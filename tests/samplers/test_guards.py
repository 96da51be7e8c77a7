r"""What a call refuses, and what it does not depend on."""

import pytest
import torch
from oracles import Independent

from scoregen.rng import generators
from scoregen.samplers import DDIM, Ancestral, DaleLangevin, ExponentialABM, Heun, VelocityABM
from scoregen.sde import EDM, VE, Cosine, GeometricBrownianMotion, RectifiedFlow

ORACLE = Independent(0.1, 0.5)


class Labelled(Independent):
    num_classes = 3

    def __call__(self, u, s, label=None):
        shift = torch.zeros(len(u), dtype=u.dtype) if label is None else label.to(u)
        return super().__call__(u, s) + shift.reshape(-1, *[1] * (u.ndim - 1))


LABELLED = Labelled(0.1, 0.5)
X = torch.ones(4, 2, dtype=torch.float64)


@pytest.mark.parametrize("steps", [0, -3, 2.5, True, "8"])
def test_steps_below_one_are_an_error(steps):
    for build in (DDIM, Heun, ExponentialABM, VelocityABM, DaleLangevin, Ancestral):
        with pytest.raises(ValueError, match="steps must be a whole number >= 1, got steps="):
            build(steps)


LOG = Independent(0, 1, GeometricBrownianMotion(offset=1.0))
CALLS = {
    "neither": (lambda: DDIM(2)(ORACLE), "give either shape .* or start"),
    "both": (lambda: DDIM(2)(ORACLE, (4, 2), start=(X, 0.5)), "give either shape .* or start"),
    "label_high": (
        lambda: DDIM(2)(LABELLED, (2, 2), label=torch.tensor([0, 3])),
        r"label must lie in 0..2, got values from 0 to 3",
    ),
    "label_low": (lambda: DDIM(2)(LABELLED, (2, 2), label=torch.tensor([0, -2])), "label must lie in 0..2"),
    "label_count": (
        lambda: DDIM(2)(LABELLED, (2, 2), label=torch.tensor([0, 1, 2])),
        r"label must be signed integers of shape \(2,\).*got torch.int64 of shape \(3,\)",
    ),
    "label_bool": (lambda: DDIM(2)(LABELLED, (2, 2), label=torch.tensor([True, False])), "got torch.bool .*long"),
    "label_uint8": (lambda: DDIM(2)(LABELLED, (2, 2), label=torch.ones(2, dtype=torch.uint8)), "got torch.uint8"),
    "label_float": (lambda: DDIM(2)(LABELLED, (2, 2), label=torch.zeros(2)), "got torch.float32"),
    "generators": (
        lambda: DDIM(2)(ORACLE, (4, 2), generator=generators(0, 0, 0, range(3))),
        "generator must be one or a list of 4, .* got a list of 3",
    ),
    "generators_of_a_start": (
        lambda: DDIM(2)(ORACLE, start=(X, 0.5), generator=generators(0, 0, 0, range(3))),
        "generator must be one or a list of 4",
    ),
    "mixed_times": (
        lambda: DDIM(2)(ORACLE, start=(X, torch.tensor([0.5, 0.6, 0.5, 0.5]))),
        "t must be the same for the whole batch",
    ),
    "no_noise": (lambda: DDIM(2)(Independent(0, 1, Cosine()), start=(X, 0.0)), r"must lie in \(0, 1\]"),
    "time_above_one": (lambda: DDIM(2)(ORACLE, start=(X, 1.5)), r"must lie in \(0, 1\].*got t=1.5"),
    "pure_noise": (lambda: DDIM(2)(Independent(0, 1, RectifiedFlow()), start=(X, 1.0)), "RectifiedFlow .*give shape="),
    "moments": (
        lambda: DDIM(2)(Independent(0, 1, VE().with_moments(torch.zeros(3), torch.ones(3))), (4, 2)),
        r"shape must be \(B, 3\).*got \(4, 2\)",
    ),
    "negative_data": (
        lambda: DDIM(2)(Independent(0, 1, GeometricBrownianMotion()), start=(-X, 0.5)),
        r"x \+ offset must be > 0 and finite for the log chart, got 8 of 8",
    ),
    "infinite_data": (
        lambda: DDIM(2)(Independent(0, 1, GeometricBrownianMotion()), start=(X.abs() / 0, 0.5)),
        r"must be > 0 and finite for the log chart, got 8 of 8 .*first: inf",
    ),
    "rounded_away": (  # exp(-20) is nothing beside an offset of 1 in float32
        lambda: DDIM(2)(LOG, start=(LOG.sde.from_u(torch.tensor([[-20.0, 0.0]]), 0.5), 0.5)),
        r"got 1 of 2 values at its end, where torch.float32 rounds x \+ offset to 0",
    ),
}


@pytest.mark.parametrize(("call", "message"), CALLS.values(), ids=CALLS.keys())
def test_bad_calls_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("sampler", [Ancestral(5), DaleLangevin(5), Heun(5, churn=5.0)], ids=["a", "d", "h"])
def test_a_sample_does_not_depend_on_its_batch(sampler):
    whole = sampler(ORACLE, (6, 2), generator=generators(7, 1, 0, range(6)))
    part = sampler(ORACLE, (2, 2), generator=generators(7, 1, 0, [3, 4]))
    torch.testing.assert_close(whole[3:5], part, rtol=1e-13, atol=1e-13)


def test_labels_reach_the_denoiser():
    x_t = torch.ones(3, 2, dtype=torch.float64)
    out = DDIM(1)(LABELLED, start=(x_t, 0.5), label=torch.tensor([0, 1, 2]))
    torch.testing.assert_close(out - out[:1], torch.tensor([[0.0], [1.0], [2.0]]).double().expand(3, 2))


def test_callback_sees_every_step():
    seen = []
    DDIM(3)(ORACLE, start=(X, 0.5), callback=lambda i, s, u, denoised: seen.append((i, float(s), denoised.shape)))
    assert [i for i, _, _ in seen] == [0, 1, 2]
    assert seen[-1][1] == 0 and seen[0][2] == X.shape


def test_start_is_differentiable():
    # on normal data the flow is affine, and its slope is the closed form
    oracle = Independent(0.3, 0.25, EDM(0.002, 2.0))
    x = torch.tensor([[0.4]], dtype=torch.float64, requires_grad=True)
    VelocityABM(200, order=4)(oracle, start=(x, 1.0)).sum().backward()
    assert x.grad.item() == pytest.approx((0.25 / (0.25 + 4)) ** 0.5, rel=1e-5)


def test_no_graph_is_kept_without_need():
    assert not DDIM(2)(ORACLE, start=(X, 0.5)).requires_grad


TYPES = {
    "label_number": (lambda: DDIM(2)(LABELLED, (2, 2), label=3), r"label must be a tensor of 2 integers, got 3"),
    "label_list": (lambda: DDIM(2)(LABELLED, (2, 2), label=[0, 1]), r"got \[0, 1\]. Give torch.tensor"),
    "generator_number": (lambda: DDIM(2)(ORACLE, start=(X, 0.5), generator=5), "got 5. For a seed give torch.Gen"),
    "grid_name": (lambda: DDIM(2, grid="karras"), "grid must be a grid of scoregen.samplers.*got 'karras'"),
}


@pytest.mark.parametrize(("call", "message"), TYPES.values(), ids=TYPES.keys())
def test_arguments_of_another_type_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_a_seed_in_place_of_a_generator_is_named():
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator .* got 3. For a seed"):
        DDIM(2)(ORACLE, (4, 2), generator=3)


@pytest.mark.parametrize("entry", ["shape", "start"])
def test_the_state_has_at_least_single_precision(entry):
    r"""A network in bfloat16 does not make the integration one in bfloat16."""

    class Half(Independent):
        def parameters(self):
            return iter((torch.zeros((), dtype=torch.bfloat16),))

        def __call__(self, u, s, label=None):
            assert u.dtype == torch.float32
            return super().__call__(u.double(), s).to(u)

    oracle, g = Half(torch.zeros(2), 1.0, VE(0.01, 10.0)), torch.Generator().manual_seed(0)
    begin = {"shape": (3, 2)} if entry == "shape" else {"start": (torch.ones(3, 2, dtype=torch.bfloat16), 0.5)}
    assert Heun(4)(oracle, **begin, generator=g).dtype == torch.float32
