r"""Networks that are told the next level: what they compute, how they are trained, and what trained ones sample."""

import copy
import math

import pytest
import torch
from flow_maps import QUANTILE, Affine, data
from oracles import energy_distance, standard_mixture
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
from scoregen.models import MLP, Denoiser, DiT, FlatMLP, LoRA, UNet
from scoregen.rng import generator, randn
from scoregen.samplers import DDIM, FlowTime, Heun
from scoregen.sde import EDM, VE, Multiplicative


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
