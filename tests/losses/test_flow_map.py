r"""Flow maps: the laws of their targets, the loss written out, one dropout mask, the bits of the teacher."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from oracles import NormalFlowMap, energy_distance, standard_mixture
from torch import nn
from torch.nn import functional

from scoregen.keys import Keys
from scoregen.losses import (
    DataWeighting,
    DenoisingScoreMatching,
    EDMWeighting,
    FlowMap,
    JacobianPenalty,
    LogNormal,
)
from scoregen.losses.flow_map_targets import JumpBatch, meanflow, progressive
from scoregen.models import MLP, Denoiser, DiT, FlatMLP, LoRA, UNet
from scoregen.models.next_level import NextLevel, gap_of
from scoregen.rng import generator, rand, randn
from scoregen.samplers import DDIM, FlowTime, Heun
from scoregen.sde import EDM, VE, Multiplicative
from scoregen.sde.path import as_time, expand

MEAN, VAR = 0.3, 0.25
EXACT = NormalFlowMap(MEAN, VAR)
# down, up, to the data, near levels, far levels
LEVELS = torch.tensor([(2.0, 0.5), (0.5, 2.0), (1.0, 0.0), (0.7, 0.7001), (0.002, 80.0), (80.0, 0.002)]).double()
QUANTILE = torch.tensor([0.001, 0.3, 0.62, 0.9, 0.9999, 0.5, 0.4])


def data(n=7):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


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


class Affine:
    r"""D = w u/(1 + s + .3 r) + .1, told r."""

    takes_next, num_classes, sigma_data = True, None, 0.5

    def __init__(self, weight=1.0, sde=None):
        self.weight, self.sde, self.calls = weight, sde or EDM(), []

    def __call__(self, u, s, label=None, *, next_s=None):
        s = as_time(s).expand(len(u))
        r = s if next_s is None else as_time(next_s)
        self.calls.append((u, s, label, r, torch.is_grad_enabled()))
        return self.weight * u / (1 + expand(s, u) + 0.3 * expand(r, u)) + 0.1


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


def network(kind, **options):
    shape = (5,) if kind is MLP else (1, 8, 8)
    small = {"channels": (4, 8), "layers": 1} if kind is UNet else {"width": 8, "depth": 2}
    return kind(shape, **small, num_classes=3, **options)


@torch.no_grad()
def randomised(model, but=()):
    draws = generator(5)
    for name, parameter in model.named_parameters():
        if not name.endswith(but):
            parameter.copy_(torch.randn(parameter.shape, generator=draws) / 3)
    return model


@pytest.mark.parametrize("kind", [MLP, FlatMLP, UNet])
@pytest.mark.parametrize("classes", [3, None], ids=["labels", "unconditional"])
def test_a_new_map_computes_the_teachers_bits_and_a_trained_one_at_r_equal_to_s(kind, classes):
    shape = (5,) if kind is MLP else (1, 8, 8)
    small = {"channels": (4, 8), "layers": 1} if kind is UNet else {"width": 8, "depth": 2}
    teacher = randomised(Denoiser(kind(shape, **small, num_classes=classes), EDM())).eval()
    student = Denoiser(kind(shape, **small, num_classes=classes, next_level=True), EDM()).eval()
    missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("network.next.") for name in missing) and len(missing) == 3
    u, s = torch.randn(6, *shape, generator=generator(0)), torch.tensor([0.01, 0.2, 1.0, 5.0, 60.0, 80.0])
    label = None if classes is None else torch.tensor([0, 1, 2, -1, 0, 1])
    wanted = teacher(u, s, label)
    assert (student(u, s, label) == wanted).all()
    for r in (0.0, s, s / 2, 2 * s):
        assert (student(u, s, label, next_s=r) == wanted).all()
    nn.init.normal_(student.network.next.last.weight, generator=generator(1))
    assert (student(u, s, label, next_s=s) == wanted).all()
    assert (student(u, 0.7, label, next_s=0.7) == teacher(u, 0.7, label)).all()
    told = student(u, s, label, next_s=0.0)
    assert ((told - wanted).abs().flatten(1).amax(1) > 1e-4).all()
    assert (copy.deepcopy(student)(u, s, label, next_s=0.0) == told).all()  # an average of it is told r too


def test_a_network_that_is_not_told_the_next_level_is_refused():
    plain = Denoiser(network(MLP), EDM())
    with pytest.raises(ValueError, match="next_s must be None for a MLP that is not told the next level"):
        plain(torch.zeros(2, 5), 1.0, next_s=0.0)
    with pytest.raises(ValueError, match="got a Denoiser of DiT, which is not"):
        FlowMap().begin(Denoiser(DiT((1, 4, 4), width=16, depth=1, heads=2), EDM()))
    with pytest.raises(ValueError, match="prediction=consistency"):
        Denoiser(network(MLP, next_level=True), EDM(), prediction="consistency")


def test_targets_have_the_dropout_mask_of_what_is_trained():
    r"""A new map does not depend on r: its first target is its own output, bit for bit, if the masks are the same."""
    torch.manual_seed(3)
    inner = randomised(Denoiser(network(MLP, next_level=True, dropout=0.5), EDM()), but="next.last.weight").train()
    outputs = []

    class Recorded:
        sde, sigma_data, num_classes, takes_next = inner.sde, 0.5, 3, True

        def __call__(self, *arguments, **options):
            outputs.append(inner(*arguments, **options))
            return outputs[-1]

    x, label = torch.randn(8, 5, generator=generator(0)), torch.arange(8) % 3
    FlowMap()(Recorded(), x, label, generator(1))
    jumps, _, first, _ = outputs
    assert (jumps == first).all()
    state = torch.get_rng_state()
    FlowMap()(Recorded(), x, label, generator(1))
    assert (outputs[4] != jumps).any()  # another step, another mask
    assert (torch.get_rng_state() != state).any()


def test_without_dropout_one_call_gives_what_two_give():
    model = randomised(Denoiser(network(UNet, next_level=True), EDM()))
    x, label, calls = torch.rand(8, 1, 8, 8, generator=generator(0)), torch.arange(8) % 3, []
    model.network.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))
    together = FlowMap()(model, x, label, generator(1))
    model.network.dropout = None  # as of a network that does not say
    apart = FlowMap()(model, x, label, generator(1))
    assert calls == [8, 4, 4, 4, 4, 4, 4]
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_autocast_does_not_lose_the_gradient():
    r"""Autocast caches cast weights; cast without a gradient first, they would have none. bf16 keeps 8 bits."""
    model = randomised(Denoiser(network(MLP, next_level=True), EDM()))
    grads = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            FlowMap()(model, torch.randn(8, 5, generator=generator(0)), None, generator(1)).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert functional.cosine_similarity(*grads, dim=0) > 0.99


def test_targets_and_what_is_trained_have_the_same_labels():
    model = Affine()
    model.num_classes = 10
    for k in range(3):
        FlowMap(label_dropout=0.5)(model, data(), torch.arange(7), generator(k))
    labels = [label for _, _, label, _, _ in model.calls]
    for first, _, second, third in zip(*[iter(labels)] * 4, strict=True):
        assert (first == second).all() and (first == third).all()
    dropped = torch.cat([torch.cat(pair) for pair in zip(labels[::4], labels[1::4], strict=True)]) == -1
    assert dropped.any() and not dropped.all()


def test_each_sample_keeps_its_label():
    r"""Sample k is k, with the label k; the levels are so small that its noisy point tells which it is."""
    model, x = Affine(), torch.arange(7.0).double()[:, None]
    model.num_classes = 7
    options = {"noise_levels": LogNormal(-6.0, 0.1), "to_noise": 0.0, "label_dropout": 0.0}
    FlowMap(**options)(model, x, torch.arange(7), generator(0))
    places = [(u[:, 0].round().long(), label) for u, _, label, _, _ in model.calls]
    assert sorted(torch.cat([place for place, _ in places[:2]]).tolist()) == list(range(7))
    assert all((place == label).all() for place, label in places[:3])


def test_a_given_weighting_and_law_are_taken_and_the_usual_ones_are_those_of_the_docs():
    keys = [Keys(0, 1, 2, range(7)) for _ in range(2)]
    usual = FlowMap(label_dropout=0.0)
    plain = FlowMap(weighting=DataWeighting(), label_dropout=0.0)
    a, b = (loss(Affine(), data(), None, k, QUANTILE) for loss, k in zip((usual, plain), keys, strict=True))
    s = usual.noise_levels(EDM(), QUANTILE)[::2]  # of those that match scores
    torch.testing.assert_close((a / b)[::2], EDMWeighting()(s, 0.5) / DataWeighting()(s, 0.5))
    assert (usual.noise_levels.mean, usual.noise_levels.std) == (-0.8, 1.7)
    assert (usual.matching, usual.to_data, usual.to_noise, usual.upward) == (0.5, 0.35, 0.1, 0.0)
    assert (FlowMap("meanflow").to_noise, FlowMap("meanflow", to_noise=0.2).to_noise) == (0.0, 0.2)


def test_adapters_are_trained_with_the_embedding_of_the_next_level():
    net = LoRA(randomised(MLP((3,), 8, 1, next_level=True)), rank=2, targets=("into.0", "out_of.0"))
    model = Denoiser(net, EDM())
    assert model.takes_next
    FlowMap()(model, data().float(), None, generator(1)).sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained and all("lora_" in name or ".next." in name for name in trained)
    assert any(name.endswith("next.last.weight") for name in trained)


def test_on_a_log_chart_the_loss_is_that_of_the_logarithms():
    y = data()
    values = [
        FlowMap()(Affine(sde=sde), x, None, generator(0), QUANTILE)
        for sde, x in ((VE(0.01, 20.0), y), (Multiplicative(VE(0.01, 20.0), offset=0.0), y.exp()))
    ]
    torch.testing.assert_close(*values, rtol=1e-9, atol=0)


def test_a_penalty_on_the_jacobian_stands_on_the_jumps_for_all_samples():
    r"""dD/du is I/(1 + s + .3 r): the penalty of the jumps, with the weight of the whole batch."""
    model, loss = Affine(), FlowMap(label_dropout=0.0)
    keys = Keys(0, 1, 2, range(7))
    base = loss(model, data(), None, keys, QUANTILE)
    (u, s, _, r, _), z = model.calls[0], randn((7, 3), keys, torch.float64)
    n = len(u)
    total = JacobianPenalty(loss, strength=0.5)(Affine(), data(), None, Keys(0, 1, 2, range(7)), QUANTILE)
    norm = z[:n].norm(dim=1) / 3**0.5 / (1 + s + 0.3 * r)
    expected = 0.5 * 7 / n * ((0.25 + s**2) / 0.25 * norm) ** 2
    torch.testing.assert_close(total - base, functional.pad(expected, (0, 7 - n)))


def test_the_log_holds_the_losses_of_both_parts():
    loss = FlowMap()
    values = [loss(Affine(), data(), None, generator(k), QUANTILE) for k in range(2)]
    expected = {  # every second sample jumps
        "jumps": float(torch.stack([v[1::2] for v in values]).mean()),
        "matching": float(torch.stack([v[::2] for v in values]).mean()),
    }
    assert loss.metrics() == pytest.approx(expected, rel=1e-6)
    with torch.no_grad():
        loss(Affine(), data(), None, generator(0), QUANTILE)  # a held-out evaluation is not logged
    assert loss.metrics() == {}


def train(model, loss, x, steps, rate):
    r"""The averages of a short training on draws from x."""
    g = torch.Generator().manual_seed(0)
    average, optimizer = copy.deepcopy(model), torch.optim.RAdam(model.parameters(), rate)
    for step in range(steps):
        value = loss(model, x[torch.randint(len(x), (256,), generator=g)], None, g).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        keep = 0.5 ** (1 / max(1.0, min(steps / 20, step / 10)))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
    return average.eval()


@pytest.mark.slow
def test_a_trained_map_samples_the_mixture_in_few_calls():
    torch.manual_seed(0)
    mixture = standard_mixture()
    x = mixture.sample(50_000, torch.Generator().manual_seed(1)).float()
    real = mixture.sample(4000, torch.Generator().manual_seed(2)).float()
    model = Denoiser(MLP((2,), 64, 2, next_level=True), EDM(), sigma_data=0.8)
    teacher = train(model, DenoisingScoreMatching(), x, 600, 3e-3)
    student = train(copy.deepcopy(teacher).train(), FlowMap(), x, 1000, 1.5e-3)

    def distance(sampler) -> float:
        return energy_distance(sampler(student, real.shape, generator=torch.Generator().manual_seed(3)), real)

    found = [distance(DDIM(k, FlowTime(0.8))) for k in (1, 2, 4)]
    assert found[0] < 0.01 and found[1] < 0.003 and found[2] < 0.001
    assert distance(Heun(18)) < 0.003  # without jumps it is still the denoiser


@pytest.mark.slow
def test_trained_on_positive_data_one_call_gives_positive_samples_and_removes_speckle():
    r"""Log-normal data on a log chart, from nothing in 500 steps; the exact flow is linear in the logarithm."""
    torch.manual_seed(0)
    sde = Multiplicative(VE(0.05, 5.0), offset=0.0)
    x = (0.4 + 0.5 * torch.randn(20_000, 1, generator=generator(1))).exp()
    model = train(Denoiser(MLP((1,), 32, 1, next_level=True), sde), FlowMap(), x, 500, 4e-3)
    one = DDIM(1)
    samples = one(model, (4000, 1), generator=generator(2))
    assert bool((samples > 0).all())
    assert float(samples.log().mean()) == pytest.approx(0.4, abs=0.06)
    assert float(samples.log().std()) == pytest.approx(0.5, abs=0.08)
    t = float(sde.time_of(torch.tensor(0.5)))
    x_t = torch.tensor([[0.7], [1.5], [3.0]])
    wanted = 0.4 + math.sqrt(0.25 / (0.25 + 0.25)) * (x_t.log() - 0.4)
    torch.testing.assert_close(one(model, start=(x_t, t)).log(), wanted, rtol=0, atol=0.08)
