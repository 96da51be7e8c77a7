r"""Flow maps: the laws of their targets, the loss written out, one dropout mask, the bits of the teacher."""

from itertools import pairwise

import pytest
import torch
from flow_maps import QUANTILE, Affine, data
from oracles import NormalFlowMap
from torch import nn

from scoregen.keys import Keys
from scoregen.losses import (
    FlowMap,
    LogNormal,
)
from scoregen.losses.flow_map_targets import JumpBatch, meanflow, progressive
from scoregen.models.next_level import NextLevel, gap_of
from scoregen.rng import generator, rand, randn

MEAN, VAR = 0.3, 0.25
EXACT = NormalFlowMap(MEAN, VAR)
# down, up, to the data, near levels, far levels
LEVELS = torch.tensor([(2.0, 0.5), (0.5, 2.0), (1.0, 0.0), (0.7, 0.7001), (0.002, 80.0), (80.0, 0.002)]).double()


def some_jumps(draw=0.35, c=0.5) -> JumpBatch:
    s, r = LEVELS.T
    u = MEAN + (VAR + s[:, None] ** 2).sqrt() * data(6)
    y = EXACT(u, s)  # the mean of y_0 given u, so that the target is its own mean
    return JumpBatch(y, u, s, None, r, torch.full_like(s, draw), c)


def exactly(u, s, r):
    return EXACT(u, s, next_s=s if r is None else r)


def reached(u, s, r, found):
    r"""Where jumps lead, in units of the deviation there."""
    r, s = r[:, None], s[:, None]
    return (found + r / s * (u - found)) / (VAR + r**2).sqrt()


@pytest.mark.parametrize("draw", [0.0, 0.35, 0.999])
def test_two_exact_jumps_are_the_jump(draw):
    r"""The composition law, to rounding: in the end point, which amplifies an error of D by |1 - r/s|."""
    jumps = some_jumps(draw)
    wanted, found = EXACT(jumps.u, jumps.s, next_s=jumps.r), progressive(exactly, jumps)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    ends = [reached(jumps.u, jumps.s, jumps.r, d) for d in (found, wanted)]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-10)


def test_a_network_that_gives_too_much_noise_is_not_led_further_off():
    r"""From s = .002 to 80 it would reach 1e5 deviations; it gets its noise back with 3, in the same direction."""
    jumps, states = some_jumps(), []

    def excessive(u, s, r):
        states.append(u)
        return (u - 1e5 * s[:, None] * torch.tensor([2.0, -1.0, 2.0]).double()) if r is not None else u

    progressive(excessive, jumps)
    u, u_m = states
    s, r = jumps.s, jumps.r
    tau_s, tau_r = s / (0.5 + s), r / (0.5 + r)
    tau_m = tau_r + (0.1 + 0.8 * 0.35) * (tau_s - tau_r)
    m = 0.5 * tau_m / (1 - tau_m)
    first = u - 1e5 * s[:, None] * torch.tensor([2.0, -1.0, 2.0]).double()
    noise = torch.tensor([2.0, -1.0, 2.0]).double() / 3**0.5 * 3.0  # of root mean square 3
    torch.testing.assert_close((u_m - first) / m[:, None], noise.expand(6, 3), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("c", [0.5, 0.8])
def test_the_differential_law_of_an_exact_map_is_the_map(c):
    r"""With a step of 1e-3 and 5e-4 the error of the central difference falls fourfold, to nothing at 0."""
    jumps = some_jumps(c=c)
    wanted = EXACT(jumps.u, jumps.s, next_s=jumps.r)
    coarse, fine = (meanflow(exactly, jumps, h) for h in (1e-3, 5e-4))
    torch.testing.assert_close(fine, wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close((4 * fine - coarse) / 3, wanted, rtol=0, atol=1e-10)


def test_the_step_of_the_derivative_is_that_of_the_loss():
    coarse, fine = (FlowMap("meanflow", h=h)._target(exactly, some_jumps()) for h in (0.3, 0.01))
    torch.testing.assert_close(fine, meanflow(exactly, some_jumps(), 0.01), rtol=0, atol=0)
    assert (coarse - fine).abs().max() > 1e-3


def test_differences_are_taken_in_full_precision():
    seen = []

    def watched(u, s, r):
        seen.append(torch.is_autocast_enabled("cpu"))
        return exactly(u, s, r)

    with torch.autocast("cpu", torch.bfloat16):
        meanflow(watched, some_jumps())
        progressive(watched, some_jumps())
    assert seen == [False] * 4 + [True] * 2


@pytest.mark.parametrize("target", ["progressive", "meanflow"])
def test_targets_take_the_networks_values_where_the_law_says(target):
    r"""Of other values than the map's own the targets differ, so that the map is what the loss singles out."""
    jumps = some_jumps()

    def wrong(u, s, r):
        r = s if r is None else r
        return exactly(u, s, r) + (0.1 * (s - torch.minimum(r, s)) / (1 + s))[:, None]

    found = (progressive if target == "progressive" else meanflow)(wrong, jumps)
    off = (found - wrong(jumps.u, jumps.s, jumps.r)).abs().amax(1)
    assert (off[[0, 2]] > 1e-3).all()


@pytest.mark.parametrize("upward", [0.0, 1.0], ids=["down", "up"])
def test_loss_is_the_formula_written_out(upward):
    r"""Two of seven samples jump, at the places where the whole part of 2 (place + 1)/5 grows; others match scores."""
    loss = FlowMap(
        matching=0.6,
        to_data=0.5,
        to_noise=0.3,
        upward=upward,
        noise_levels=LogNormal(-0.5, 1.5),
        label_dropout=0.0,
    )
    model, c = Affine(), 0.8
    model.sigma_data = c
    found = loss(model, data(), None, Keys(0, 1, 2, range(7)), QUANTILE)
    keys = Keys(0, 1, 2, range(7))
    eps, draws = randn((7, 3), keys, torch.float64), rand((7, 5), keys, torch.float64)

    def law(q):
        return float(torch.exp(-0.5 + 1.5 * torch.special.ndtri(torch.as_tensor(q).double())).clamp(0.002, 80.0))

    def denoised(u, s, r):
        return u / (1 + s + 0.3 * r) + 0.1

    for i in range(7):
        s = law(QUANTILE[i])
        if i in (2, 4):
            low, high = sorted([s, law(draws[i, 0])])
            to_data, to_noise = bool(draws[i, 1] < 0.5), bool(draws[i, 2] < 0.3)
            high = 80.0 if to_noise else high
            s, r = ((0.002 if to_data else low), high) if upward else (high, (0.0 if to_data else low))
            tau_s, tau_r, f = s / (c + s), r / (c + r), 0.1 + 0.8 * float(draws[i, 4])
            tau_m = tau_r + f * (tau_s - tau_r)
            m = c * tau_m / (1 - tau_m)
            u = data()[i] + s * eps[i]
            first = denoised(u, s, m)
            shorter = min(1.0, 3 * s / float((u - first).square().mean().sqrt()))  # no longer than noise can be
            second = denoised(first + m / s * shorter * (u - first), m, r)
            w = (1 - r / m) / (1 - r / s)
            delta = denoised(u, s, r) - (w * second + (1 - w) * first)
        else:
            u = data()[i] + s * eps[i]
            delta = denoised(u, s, s) - data()[i]
        weight = (s**2 + c**2) / (s * c) ** 2
        assert float(found[i]) == pytest.approx(weight * float(delta.square().mean()), rel=1e-9)


def test_gradient_flows_through_what_is_trained_alone():
    weight = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    model = Affine(weight)
    FlowMap(upward=0.0)(model, data(), None, generator(1), QUANTILE).sum().backward()
    assert [call[-1] for call in model.calls] == [True, True, False, False]
    with torch.no_grad():
        (u, s, _, r, _), (v, t, *_), (_, _, _, m, _), (u_m, *_) = model.calls
    n, expected, y = len(u), 0.0, data()[[1, 3, 5, 0, 2, 4, 6]]  # the second of every two jumps
    for i in range(7):
        if i < n:
            slope = u[i] / (1 + s[i] + 0.3 * r[i])
            first = u[i] / (1 + s[i] + 0.3 * m[i]) + 0.1
            second = u_m[i] / (1 + m[i] + 0.3 * r[i]) + 0.1
            w = (1 - r[i] / m[i]) / (1 - r[i] / s[i])
            delta, level = slope + 0.1 - w * second - (1 - w) * first, s[i]
        else:
            slope = v[i - n] / (1 + 1.3 * t[i - n])
            delta, level = slope + 0.1 - y[i], t[i - n]
        expected = expected + (level**2 + 0.25) / (level * 0.5) ** 2 * (2 * delta * slope).mean()
    torch.testing.assert_close(weight.grad, expected.detach())


def test_ends_of_jumps_follow_their_probabilities():
    model, y = Affine(), torch.zeros(4000, 1)
    FlowMap(to_data=0.3, to_noise=0.1, upward=0.25)(model, y, None, generator(0))
    _, s, _, r, _ = model.calls[0]
    # 2,000 draws: 4 deviations are .04, false alarms 6e-5 each
    assert float((r > s).double().mean()) == pytest.approx(0.25, abs=0.04)
    assert float((r == 0).double().mean()) == pytest.approx(0.75 * 0.3, abs=0.04)
    assert float((torch.maximum(r, s) == 80.0).double().mean()) == pytest.approx(0.1, abs=0.03)
    assert float((s[r > s] < 0.0020001).double().mean()) == pytest.approx(0.3, abs=0.09)


@pytest.mark.parametrize(
    ("batch", "matching", "n"), [(8, 0.5, 4), (9, 0.5, 4), (7, 0.75, 1), (2, 0.5, 1), (30, 0.1, 27)]
)
def test_levels_of_both_parts_are_spread_evenly(batch, matching, n):
    order, found = FlowMap(matching=matching)._parts(batch, None, torch.device("cpu"))
    quantile = (torch.arange(batch) + 0.5) / batch
    dealt = quantile[order]
    assert found == n and sorted(dealt.tolist()) == quantile.tolist()
    for part in (dealt[:n], dealt[n:]):
        assert part.tolist() == sorted(part.tolist())
        assert part[0] <= 1 / len(part) + 0.5 / batch and part[-1] >= 1 - 1 / len(part) - 0.5 / batch
        assert all(b - a <= 1 / batch + 1 / len(part) + 1e-6 for a, b in pairwise(part.tolist()))


@pytest.mark.parametrize("matching", [0.5, 0.3])
@pytest.mark.parametrize("target", ["progressive", "meanflow"])
def test_a_sample_has_the_same_loss_however_the_batch_is_cut(matching, target):
    r"""Processes and micro-batches each see a slice of the global batch."""
    loss, x, quantile = FlowMap(target=target, matching=matching, upward=0.2), data(12), (torch.arange(12) + 0.5) / 12

    def of(places):
        keys = Keys(0, 1, 2, places)
        return loss(Affine(), x[places.start : places.stop], None, keys, quantile[places.start : places.stop])

    whole = of(range(12))
    for size in (4, 6):
        cut = torch.cat([of(range(first, first + size)) for first in range(0, 12, size)])
        torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("matching", "least"), [(0.5, 2), (0.75, 4), (0.3, 4), (1 / 3, 3), (0.9995, 2000)])
def test_a_small_batch_is_refused_where_it_is_trained_on_and_measured_where_not(matching, least):
    loss = FlowMap(matching=matching)
    with pytest.raises(ValueError, match=f"at least {least} samples of a batch in each process and micro-batch"):
        loss(Affine(), data(least - 1), None, generator(0))
    assert loss(Affine(), data(least), None, generator(0)).shape == (least,)
    with torch.no_grad():
        assert loss(Affine(), data(1), None, generator(0)).shape == (1,)


@pytest.mark.parametrize("matching", [1e-9, 1 - 1e-9])
def test_a_share_of_hardly_anything_asks_for_a_batch_of_a_million(matching):
    with pytest.raises(ValueError, match="at least 1000000 samples"):
        FlowMap(matching=matching)(Affine(), data(9), None, generator(0))


def test_the_gap_is_that_of_flow_matching_times_and_its_mirror_image_upward():
    s, r = LEVELS.T
    tau_s, tau_r = s / (0.5 + s), r / (0.5 + r)
    wanted = torch.where(r <= s, 1 - tau_r / tau_s, tau_s / tau_r - 1)
    torch.testing.assert_close(gap_of(s, r, 0.5), wanted, rtol=1e-10, atol=1e-12)
    assert gap_of(s, 0 * s, 0.5).tolist() == pytest.approx([1.0] * 6) and gap_of(s, s, 0.5).tolist() == [0.0] * 6


def test_short_jumps_are_told_little():
    embedding = NextLevel(8)
    nn.init.normal_(embedding.last.weight, generator=generator(0))
    near, far = embedding(torch.tensor([1e-5, 0.5])).detach().norm(dim=1)
    assert near < 1e-2 * far
