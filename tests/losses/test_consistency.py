r"""Consistency losses: the formula, its pairs of levels, one noise and one dropout mask, the law of what is trained."""

import math
from itertools import pairwise
from statistics import NormalDist

import pytest
import torch
from consistency_parts import QUANTILE, Affine, Flow, data
from oracles import Independent
from torch import nn
from torch.nn import functional

from scoregen.losses import ConsistencyDistillation, ConsistencyTuning, Gap, LogUniform
from scoregen.models import MLP, Denoiser
from scoregen.rng import generators, randn
from scoregen.sde import EDM
from scoregen.sde import Affine as AffineChart


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
