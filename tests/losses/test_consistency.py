r"""Consistency losses: the formula, its pairs of levels, one noise and one dropout mask, the law of what is trained."""

import copy
import math
from itertools import pairwise
from statistics import NormalDist
from types import SimpleNamespace

import pytest
import torch
from oracles import Independent, affine_law, energy_distance, log_normal_mixture, standard_mixture
from torch import nn
from torch.nn import functional

from scoregen.data import Toy2D
from scoregen.losses import ConsistencyDistillation, ConsistencyTuning, DenoisingScoreMatching, Gap, LogUniform
from scoregen.losses.consistency import AbstractConsistency
from scoregen.models import MLP, Denoiser
from scoregen.monitors import FewCalls
from scoregen.pictures import save_grid
from scoregen.rng import Stream, generators, randn
from scoregen.samplers import Consistency, Heun, Levels
from scoregen.sde import EDM, VE, GeometricBrownianMotion, Multiplicative
from scoregen.sde import Affine as AffineChart
from scoregen.sde.path import as_time, expand
from scoregen.training import Moment, Trainer

QUANTILE = torch.tensor([0.001, 0.3, 0.62, 0.9, 0.9999])


class Affine:
    r"""D = w u/(1 + s) + .1: not u at s = 0, so that the rule for r = 0 shows."""

    def __init__(self, weight=1.0, sde=None):
        self.weight, self.sde, self.calls = weight, sde or EDM(), []

    def __call__(self, u, s, label=None):
        self.calls.append((u, s, label))
        return self.weight * u / (1 + expand(as_time(s), u)) + 0.1


class Flow(Independent):
    r"""The exact consistency function of an independent normal law."""

    def __call__(self, u, s, label=None):
        s2 = torch.as_tensor(s, dtype=u.dtype).reshape(-1, *[1] * (u.ndim - 1)) ** 2
        return self.mean + (self.var / (self.var + s2)).sqrt() * (u - self.mean)


class IndependentNoise(AbstractConsistency):
    r"""The broken loss: fresh noise in the second branch."""

    def lower(self, y, eps, s, r, label):
        return y + expand(r, y) * torch.randn(y.shape)


def data(n=5):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("c", [0.0, 0.03])
@pytest.mark.parametrize("step", [0, 299, 300, 799], ids=["first", "stage 2", "stage 3", "last"])
def test_loss_is_the_formula_written_out(step, c):
    loss = ConsistencyTuning(c=c)
    loss.at(step, 800)
    found = loss(Affine(), data(), None, generators(0, 1, 2, range(5)), QUANTILE)
    eps = randn((5, 3), generators(0, 1, 2, range(5)), torch.float64)
    stage = math.floor(8 * step / 800)
    for i, (x, e) in enumerate(zip(data().tolist(), eps.tolist(), strict=True)):
        t = math.exp(-1.1 + 2.0 * NormalDist().inv_cdf(float(QUANTILE[i])))
        t = min(max(t, 0.002), 80.0)
        r = max(0.0, t * (1 - (1 + 8 / (1 + math.exp(t))) / 2 ** (stage + 1)))
        square = 0.0
        for a, b in zip(x, e, strict=True):
            high = (a + t * b) / (1 + t) + 0.1
            low = (a + r * b) / (1 + r) + 0.1 if r > 0 else a
            square += (high - low) ** 2
        assert float(found[i]) == pytest.approx((math.sqrt(square + c * c) - c) / (t - r), rel=1e-9)


def test_pairs_close_to_the_largest_ratio():
    s = torch.tensor([0.002, 0.3, 80.0], dtype=torch.float64)
    gap = Gap(q=2.0, stages=16)
    ratios = torch.stack([gap(s, k) / s for k in range(16)])
    assert (ratios[0, :2] == 0).all()
    assert (ratios.diff(dim=0) >= 0).all()
    torch.testing.assert_close(ratios[-1], torch.full((3,), 0.999, dtype=torch.float64))
    # the short recipe: one stage with q = 256; eta(0) = 5, eta(infinity) = 1
    short = Gap(q=256.0, stages=1)(torch.tensor([1e-9, 1e3], dtype=torch.float64), 0)
    assert (short / torch.tensor([1e-9, 1e3])).tolist() == pytest.approx([1 - 5 / 256, 1 - 1 / 256], rel=1e-6)


def test_stages_are_equal_parts_of_the_run():
    assert [Gap(stages=4).stage(k, 10) for k in range(10)] == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


def test_weight_of_near_pairs_keeps_float32_accuracy():
    r"""In float32, s - r at r/s = .999 would be wrong by 1e-4."""
    loss = ConsistencyTuning(noise_levels=LogUniform(), gap=Gap(stages=16))
    loss.at(15, 16)
    outputs = iter([torch.ones(64, 1), torch.zeros(64, 1)])

    class Given(Affine):
        def __call__(self, u, s, label=None):
            return next(outputs)

    quantile = torch.rand(64, generator=torch.Generator().manual_seed(0))
    found = loss(Given(), torch.zeros(64, 1), None, None, quantile).double()
    s = 0.002 * 40_000 ** quantile.double()
    torch.testing.assert_close(found, 1 / (0.001 * s), rtol=2e-7, atol=0)


def test_gradient_flows_through_the_upper_branch_alone():
    weight = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    model, loss = Affine(weight), ConsistencyTuning()
    loss.at(700, 800)
    loss(model, data(), None, torch.Generator().manual_seed(1), QUANTILE).sum().backward()
    (u, s, _), (u_r, r, _) = model.calls
    high, low = u / (1 + s[:, None]), u_r / (1 + r[:, None])
    direction = (high - low) / (high - low).norm(dim=1, keepdim=True)
    expected = ((direction * high).sum(1) / (s - r)).sum()
    torch.testing.assert_close(weight.grad, expected)


def test_autocast_does_not_lose_the_gradient():
    r"""Autocast caches cast weights; cast without a gradient first, they would have none. bf16 keeps 8 bits."""
    torch.manual_seed(0)
    model = Denoiser(MLP((3,), 32, 1), EDM())
    nn.init.normal_(model.network.last.weight)
    grads = []
    for enabled in (False, True):
        loss = ConsistencyTuning()
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = loss(model, data().float(), None, torch.Generator().manual_seed(1), QUANTILE)
        value.sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert functional.cosine_similarity(*grads, dim=0) > 0.99


def test_both_branches_have_the_same_dropout_mask():
    masks = []

    class Recorder(Affine):
        def __call__(self, u, s, label=None):
            masks.append(functional.dropout(torch.ones(5, 3), 0.5))
            return super().__call__(u, s, label)

    loss = ConsistencyTuning()
    torch.manual_seed(3)
    for _ in range(2):
        loss(Recorder(), data(), None, None, QUANTILE)
    assert (masks[0] == masks[1]).all()
    assert (masks[2] == masks[3]).all()
    assert (masks[0] != masks[2]).any()


def test_both_branches_have_the_same_labels():
    model = Affine()
    model.num_classes = 10
    for k in range(3):
        ConsistencyTuning(label_dropout=0.5)(model, data(), torch.arange(5), torch.Generator().manual_seed(k))
    labels = [label for _, _, label in model.calls]
    assert all((a == b).all() for a, b in zip(labels[::2], labels[1::2], strict=True))
    dropped = torch.cat(labels) == -1
    assert dropped.any() and not dropped.all()


def test_pseudo_huber_tends_to_the_norm():
    r"""0 <= |d| - (sqrt(|d|^2 + c^2) - c) <= c, and the gradient at 0 is 0 for every c."""
    delta = torch.cat([torch.zeros(1, 4), torch.randn(9, 4, generator=torch.Generator().manual_seed(0))]).double()
    for c in (0.0, 1e-6, 1e-3):
        rows = delta.clone().requires_grad_()
        value = ConsistencyTuning(c=c).distance(rows)
        loss_of_size = delta.norm(dim=1) - value.detach()
        assert (loss_of_size >= 0).all() and (loss_of_size <= c).all()
        value.sum().backward()
        assert (rows.grad[0] == 0).all()
        torch.testing.assert_close(rows.grad[1:], delta[1:] / (delta[1:].norm(dim=1, keepdim=True) ** 2 + c**2).sqrt())


def test_the_log_holds_the_mean_distance_in_bins_of_noise():
    loss, model = ConsistencyTuning(), Affine()
    loss.at(200, 800)
    for seed in range(2):
        loss(model, data(), None, torch.Generator().manual_seed(seed), QUANTILE)
    found = loss.metrics()
    assert found.pop("stage") == 2
    values = {}
    edges = {"0-0.01": 0.0, "0.01-0.1": 0.01, "0.1-1.0": 0.1, "1.0-10.0": 1.0, "10.0-inf": 10.0}
    for (u, s, _), (u_r, r, _) in zip(model.calls[::2], model.calls[1::2], strict=True):
        norms = (u / (1 + s[:, None]) - u_r / (1 + r[:, None])).norm(dim=1)
        for level, norm in zip(s.tolist(), norms.tolist(), strict=True):
            name = [n for n, low in edges.items() if level > low][-1]
            values.setdefault(f"delta/{name}", []).append(norm)
    assert len(values) >= 4
    assert found == pytest.approx({k: sum(v) / len(v) for k, v in values.items()}, rel=1e-6)
    with torch.no_grad():
        loss(model, data(), None, torch.Generator().manual_seed(2), QUANTILE)  # a held-out evaluation is not logged
    assert loss.metrics() == {"stage": 2}


def test_distillation_takes_a_step_of_second_order_along_the_flow():
    r"""With the exact teacher and consistency function Delta is the local error, O(gap^3): 8 for each halving."""
    teacher, flow = Independent(0.3, 0.25), Flow(0.3, 0.25)
    teacher.eval = lambda: teacher
    teacher.to = lambda device: teacher
    y = data(200)
    sizes = []
    for stage in (4, 5, 6, 7):
        loss = ConsistencyDistillation(teacher, label_dropout=0.0)
        loss.stage = stage
        s = torch.full((200,), 2.0, dtype=torch.float64)
        r = loss.gap(s, stage)
        eps = torch.randn(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        delta = flow(y + 2.0 * eps, s) - flow(loss.lower(y, eps, s, r, None), r)
        sizes.append(float(delta.norm(dim=1).mean()))
    ratios = [a / b for a, b in pairwise(sizes)]
    assert ratios == pytest.approx([8, 8, 8], rel=0.1)


def test_the_teacher_is_told_the_labels():
    teacher, label = Affine(), torch.tensor([2, 0, 1, 2, 1])
    teacher.eval = lambda: teacher
    teacher.to = lambda device: teacher
    s = torch.full((5,), 2.0, dtype=torch.float64)
    ConsistencyDistillation(teacher).lower(data(), data(), s, s / 2, label)
    assert len(teacher.calls) == 2 and all(given is label for _, _, given in teacher.calls)


def test_distillation_to_zero_noise_is_the_teachers_denoised_value():
    model = Affine(0.5)
    model.eval = lambda: model
    model.to = lambda device: model
    loss = ConsistencyDistillation(model)
    y, eps = data(), torch.ones(5, 3, dtype=torch.float64)
    s = torch.full((5,), 0.7, dtype=torch.float64)
    torch.testing.assert_close(loss.lower(y, eps, s, 0 * s, None), 0.5 * (y + 0.7) / 1.7 + 0.1)


def test_a_teacher_is_not_part_of_the_loss_that_checkpoints_save():
    teacher = Denoiser(MLP((3,), 8, 1), EDM()).train()
    loss = ConsistencyDistillation(teacher)
    assert not loss.state_dict() and not list(loss.parameters()) and not teacher.training


@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_the_exact_function_keeps_the_law_on_the_default_grid(steps):
    oracle = Flow(-0.2, 0.3)
    sampler = Consistency(steps)
    grid = sampler.grid(oracle.sde, steps)
    assert len(grid) == steps + 1
    mean, var = affine_law(sampler, oracle, grid, -0.2, 0.3 + 80.0**2)
    assert (mean, var) == pytest.approx((-0.2, 0.3), rel=1e-12)


def test_two_steps_call_the_model_at_the_given_levels_with_the_label():
    model = Affine()
    label = torch.tensor([3, 1, 4])
    x = Consistency(2, Levels([80.0, 0.821]))(model, (3, 2), label=label, generator=torch.Generator().manual_seed(0))
    assert [float(s) for _, s, _ in model.calls] == [80.0, 0.821]
    assert all(given is label for _, _, given in model.calls)
    u = model.calls[-1][0]
    torch.testing.assert_close(x, u / 1.821 + 0.1)  # nothing is added after the last call


def test_on_a_log_chart_the_loss_is_that_of_the_logarithms():
    r"""x = exp(y): the same pairs, noise and distance; so the paths end in positive data."""
    y = data()
    values = [
        ConsistencyTuning(c=0.1)(Affine(sde=sde), x, None, torch.Generator().manual_seed(0), QUANTILE)
        for sde, x in ((VE(0.01, 20.0), y), (Multiplicative(VE(0.01, 20.0), offset=0.0), y.exp()))
    ]
    torch.testing.assert_close(*values, rtol=1e-9, atol=0)


def test_one_step_despeckles_to_the_end_of_the_path():
    r"""On log-normal data the exact function maps log x_t = log x_0 + s eps to m + sqrt(v/(v + s^2)) (log x_t - m)."""
    sde = GeometricBrownianMotion(volatility=0.8)
    model = Flow(0.4, 0.09, sde)
    x_t = torch.tensor([[0.3], [1.7]], dtype=torch.float64)
    s2 = 0.64 * 0.5
    expected = torch.exp(0.4 + math.sqrt(0.09 / (0.09 + s2)) * (x_t.log() - 0.4))
    torch.testing.assert_close(Consistency(1)(model, start=(x_t, 0.5)), expected, rtol=1e-9, atol=0)


class Recording(ConsistencyTuning):
    r"""Remembers the stage of each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def at(self, step, steps):
        super().at(step, steps)
        self.seen.append(self.stage)


def test_a_resumed_run_goes_through_the_same_stages(tmp_path):
    def run(folder, start=None):
        torch.manual_seed(0)
        model, loss = Denoiser(MLP((2,), 16, 1, dropout=0.2), EDM()), Recording()
        trainer = Trainer(16, 32, checkpoint_every=7, keep_last=9, precision="no")
        (tmp_path / folder).mkdir()
        trainer.fit(model, loss, Toy2D(200), tmp_path / folder, {"model": {}}, start=start, seed=1)
        return loss.seen, torch.cat([p.detach().flatten() for p in model.parameters()])

    stages, weights = run("whole")
    assert stages == [k // 2 for k in range(16)]
    resumed, again = run("resumed", tmp_path / "whole" / "checkpoints" / "step_00000007")
    assert resumed == stages[7:]
    assert (weights == again).all()


def test_grids_of_one_and_two_calls_come_from_the_same_noise(tmp_path):
    r"""The first picture is D(80 eps) of the keyed noise; in the second its noise of .821 is drawn anew and removed."""
    model, pictures = Flow(0.5, 0.01), {}
    moment = Moment(7, model, tmp_path, None, lambda name, path: pictures.update({name: path}), None)
    FewCalls(SimpleNamespace(shape=(1, 2, 2), range=(0.0, 1.0)), every=1, n=4)(moment)
    eps = randn((4, 1, 2, 2), generators(0, Stream.PREVIEW, 0, range(4)), torch.float64)
    one = 0.5 + 0.1 / math.sqrt(0.01 + 6400) * (80 * eps - 0.5)
    assert set(pictures) == {"calls_1", "calls_2"}
    assert pictures["calls_1"].read_bytes() == save_grid(one, tmp_path / "expected.png").read_bytes()
    assert pictures["calls_2"].read_bytes() != pictures["calls_1"].read_bytes()


def train(model, loss, x, optimizer, steps, seed):
    r"""The averages of a short training on draws from x."""
    g = torch.Generator().manual_seed(seed)
    average = copy.deepcopy(model)
    for step in range(steps):
        loss.at(step, steps)
        value = loss(model, x[torch.randint(len(x), (256,), generator=g)], None, g).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        keep = 0.5 ** (1 / max(1.0, min(steps / 20, step / 10)))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
    return average.eval()


@pytest.mark.slow
def test_tuned_model_samples_the_mixture_in_two_steps():
    r"""Energy distance at most .03, and at least five times worse with independent noise (found: .004 and .58)."""
    torch.manual_seed(0)
    mixture = standard_mixture()
    x = mixture.sample(50_000, torch.Generator().manual_seed(1)).float()
    real = mixture.sample(4000, torch.Generator().manual_seed(2)).float()

    def distance(model, sampler):
        return energy_distance(sampler(model, real.shape, generator=torch.Generator().manual_seed(3)), real)

    model = Denoiser(MLP((2,), 64, 2), EDM(), sigma_data=0.8)
    teacher = train(model, DenoisingScoreMatching(), x, torch.optim.Adam(model.parameters(), 2e-3), 600, 4)
    assert distance(teacher, Heun(18)) < 0.005
    found = []
    two_steps = Consistency(2, Levels([80.0, 0.821]))
    for loss in (ConsistencyTuning(c=0.03), IndependentNoise(c=0.03)):
        model = copy.deepcopy(teacher).train()
        found.append(distance(train(model, loss, x, torch.optim.RAdam(model.parameters(), 1e-3), 800, 5), two_steps))
    assert found[0] <= 0.03
    assert found[1] >= 5 * found[0]


@pytest.mark.slow
def test_one_step_of_a_multiplicative_model_is_positive_and_follows_the_data():
    r"""From scratch: all samples positive; energy distance of log x at most .01 (found .003; a normal fit has .022)."""
    torch.manual_seed(0)
    sde = Multiplicative(VE(0.01, 20.0), offset=0.0)
    law = log_normal_mixture(sde)
    x = law.sample(20_000, torch.Generator().manual_seed(1)).exp().float()
    real = law.sample(4000, torch.Generator().manual_seed(2)).float()
    model = Denoiser(MLP((1,), 48, 2), sde, sigma_data=0.25)
    average = train(model, ConsistencyTuning(), x, torch.optim.RAdam(model.parameters(), 2e-3), 600, 3)
    samples = Consistency(1)(average, real.shape, generator=torch.Generator().manual_seed(4))
    assert (samples > 0).all()
    assert energy_distance(samples.log(), real) <= 0.01


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Gap(q=1.0), r"q must satisfy 1 < q < inf, got q=1\.0"),
        (lambda: ConsistencyTuning(c=-1.0), "c must be >= 0, got c=-1.0"),
        (lambda: ConsistencyTuning(label_dropout=2.0), "label_dropout=2.0"),
        (lambda: ConsistencyDistillation(nn.Linear(1, 1)), "must be a denoiser, got Linear"),
    ],
    ids=["q", "c", "label dropout", "teacher"],
)
def test_bad_arguments_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_a_teacher_in_other_coordinates_is_refused():
    teacher = Denoiser(MLP((2,)), EDM(chart=AffineChart(2, -1)))
    with pytest.raises(ValueError, match="teacher must have the chart of the model"):
        ConsistencyDistillation(teacher).begin(Denoiser(MLP((2,)), EDM()))
