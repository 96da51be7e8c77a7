r"""Step-wise variation regularisation in a training: thinned steps, running means, two processes, other losses."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from oracles import Independent
from smooth import LEVELS, QUANTILE, B, D, aimed, data, denoiser, draws, jacobians, witnessed
from torch import nn

from scoregen.losses import (
    VJP,
    ConsistencyTuning,
    CrossEntropy,
    DenoisingScoreMatching,
    FiniteDifference,
    JacobianPenalty,
    Loss,
    StepwiseVariation,
)
from scoregen.losses.jacobian import Witness
from scoregen.losses.smoothness import EDGES
from scoregen.rng import generators, randn
from scoregen.sde import EDM, VP


def gradient(model):
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def test_every_fourth_step_has_the_mean_gradient_of_every_step():
    model, means = denoiser(), []
    for every in (1, 4):
        loss, found = aimed(StepwiseVariation(DenoisingScoreMatching(LEVELS), every=every, rate=1e-9)), []
        for step in range(4):
            loss.at(step, 4)
            loss(model, data(), None, draws(), QUANTILE).sum().backward()
            found.append(gradient(model))
        means.append(torch.stack(found).mean(0))
    torch.testing.assert_close(*means, rtol=1e-6, atol=1e-9)


def test_a_loop_without_steps_has_the_penalty_at_its_own_weight():
    values = []
    for every in (1, 4):
        model = denoiser()
        values.append(JacobianPenalty(DenoisingScoreMatching(), 1.0, "vjp", every)(model, data(), generator=draws()))
    torch.testing.assert_close(*values)


def test_steps_without_a_penalty_and_evaluations_are_the_base_loss():
    model, base = denoiser(), DenoisingScoreMatching(LEVELS)
    loss = aimed(StepwiseVariation(base, every=3))
    expected = base(model, data(), None, draws(), QUANTILE)
    loss.at(1, 4)
    assert torch.equal(loss(model, data(), None, draws(), QUANTILE), expected)
    loss.at(3, 4)
    assert not torch.equal(loss(model, data(), None, draws(), QUANTILE), expected)
    fresh = StepwiseVariation(base)
    with torch.no_grad():
        assert torch.equal(fresh(model, data(), None, draws(), QUANTILE), expected)
    assert fresh.a.isnan().all()


@pytest.mark.parametrize("target", ["global", "per_level"])
def test_the_running_mean_starts_at_the_first_step_and_moves_by_its_rate(target):
    sde, sd = VP(), 0.7
    oracle = Independent(0.0, sd**2, sde)
    oracle.num_classes, oracle.sigma_data = None, sd
    loss = StepwiseVariation(DenoisingScoreMatching(LEVELS), "latent", target, rate=0.25)
    s = LEVELS(sde, QUANTILE)
    place = torch.bucketize(s, torch.tensor(EDGES).double()) if target == "per_level" else torch.zeros(B).long()
    norms = []
    for step in range(2):
        loss.at(step, 3)
        g = draws(step=step)
        DenoisingScoreMatching(LEVELS)(oracle, data(), None, g, QUANTILE)
        norms.append(sd**2 / (sd**2 + s**2) * (randn((B, D), g, torch.float64) / math.sqrt(D)).norm(dim=1))
        loss(oracle, data(), None, draws(step=step), QUANTILE)
    loss.at(2, 3)
    for k in place.unique().tolist():
        first, second = (q[place == k].mean() for q in norms)
        assert float(loss.a[k]) == pytest.approx(float(first + 0.25 * (second - first)), rel=1e-5)
    assert loss.a.isnan().sum() == len(loss.a) - len(place.unique())


def test_micro_batches_share_the_mean_of_earlier_steps():
    r"""From the first step on, which has none: parts are blocks of noise levels, so that of the first is no mean."""
    model, found = denoiser(), []
    for parts in ([slice(None)], [slice(0, 2), slice(2, None)]):
        loss = StepwiseVariation(DenoisingScoreMatching(LEVELS))
        for step in range(3):
            loss.at(step, 4)
            for part in parts:
                loss(model, data()[part], None, draws(step=step)[part], QUANTILE[part]).sum().backward()
        loss.at(3, 4)
        found.append((gradient(model), loss.a))
    torch.testing.assert_close(*found)


def test_an_overflow_costs_its_step_and_not_the_mean():
    loss = aimed(StepwiseVariation(DenoisingScoreMatching(LEVELS), rate=0.5), 1.0)
    loss.at(0, 3)
    assert loss.penalty(torch.tensor([3.0, math.inf]), torch.tensor([1.0, 1.0])).tolist() == [4.0, math.inf]
    loss.at(1, 3)
    assert loss.a.tolist() == [2.0]


def test_state_is_saved_and_goes_on_where_it_was():
    model = denoiser()
    losses = [StepwiseVariation(DenoisingScoreMatching(LEVELS), target="per_level") for _ in range(2)]
    losses[0].at(0, 3)
    losses[0](model, data(), None, draws(), QUANTILE)
    state = copy.deepcopy(losses[0].state_dict())
    assert "a" in state
    losses[1].load_state_dict(state)
    values = []
    for loss in losses:
        loss.at(1, 3)
        values.append(loss(model, data(), None, draws(step=1), QUANTILE))
    assert torch.equal(*values)


def test_labels_are_those_of_the_base_loss_null_class_included():
    model, label = denoiser(num_classes=4), torch.tensor([0, 1, 2, 3, 1])
    witness = Witness(model, VJP())
    DenoisingScoreMatching(LEVELS, label_dropout=0.5)(witness, data(), label, draws(), QUANTILE)
    used = witness._call[2]
    assert (used == -1).any()
    assert (used[used >= 0] == label[used >= 0]).all()
    v = randn((B, D), generators(7, 1, 0, range(B)), torch.float64) / math.sqrt(D)
    jacobian = jacobians(model, witness.u, witness.s, used)
    for estimator, contraction, rtol in ((VJP(), "bij,bi->bj", 1e-12), (FiniteDifference(1e-6), "bij,bj->bi", 2e-5)):
        found = estimator.norm(witness, generators(7, 1, 0, range(B)))
        torch.testing.assert_close(found, torch.einsum(contraction, jacobian, v).norm(dim=1), rtol=rtol, atol=0)


def test_the_difference_has_one_dropout_mask():
    r"""With two masks the difference would be of order 1/h: 1e5 and more."""
    model = denoiser(dropout=0.5).train()
    _, near, _ = witnessed(model, FiniteDifference(1e-6))
    assert near.max() < 10


def test_full_precision_under_autocast():
    model = denoiser().float()
    with torch.autocast("cpu", torch.bfloat16):
        value = aimed(StepwiseVariation(DenoisingScoreMatching(LEVELS)))(model, data().float(), None, draws(), QUANTILE)
    expected = aimed(StepwiseVariation(DenoisingScoreMatching(LEVELS)))(model, data().float(), None, draws(), QUANTILE)
    assert torch.equal(value, expected)


def test_any_loss_of_a_denoiser_can_be_wrapped():
    model, base = denoiser(EDM()), ConsistencyTuning()
    loss = aimed(StepwiseVariation(base, "latent", "per_level", strength=1.0))
    loss.at(0, 8)
    value = loss(model, data(), None, draws(), QUANTILE)
    assert (value > base(model, data(), None, draws(), QUANTILE)).any()
    names = loss.metrics()
    assert {"stage", "penalty"} < names.keys()


def test_metrics_are_the_norm_its_target_and_their_ratio():
    r"""One level: the raw norm is that of J_x, target a/w, ratio w |J_x^T v|/a."""
    sde, model = VP(), denoiser(VP())
    loss = aimed(StepwiseVariation(DenoisingScoreMatching(LEVELS), "paper", estimator="vjp"))
    quantile = torch.full((B,), 0.3, dtype=torch.float64)
    loss(model, data(), None, draws(), quantile)
    s = LEVELS(sde, quantile[:1])
    t = sde.time_of(s)
    name = next(f"{low}-{high}" for low, high in zip((0, *EDGES), (*EDGES, "inf"), strict=True) if s <= float(high))
    found = loss.metrics()
    seen = float(loss.pending[0] / loss.pending[1])
    assert found[f"jacobian/{name}"] * float(sde.sigma(t) ** 2) == pytest.approx(seen, rel=1e-5)
    assert found[f"target/{name}"] * float(sde.sigma(t) ** 2) == pytest.approx(float(loss.a), rel=1e-5)
    assert found[f"ratio/{name}"] == pytest.approx(seen / float(loss.a), rel=1e-5)
    assert loss.metrics() == {}


def joint(number, total):
    r"""One process's part of a batch of eight: its gradients added up over three steps and processes, a, the log."""
    model = denoiser()
    loss = StepwiseVariation(DenoisingScoreMatching(LEVELS), target="per_level", strength=3.0)
    mine = slice(number, None, total)
    for step in range(3):
        loss.at(step, 3)
        quantile = torch.linspace(0.02, 0.98, 8, dtype=torch.float64)[mine]
        loss(model, data(8)[mine], None, draws(8, step)[mine], quantile).sum().backward()
    found, logged = gradient(model), loss.metrics()
    if total > 1:
        dist.all_reduce(found)
    loss.at(3, 4)
    return found, loss.a, logged


def test_two_processes_have_the_target_and_gradient_of_one(tmp_path):
    r"""This file, run twice as a script, joins the two halves."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path])}
    arguments = [sys.executable, __file__, str(tmp_path)]
    processes = [subprocess.Popen([*arguments, str(number)], env=environment) for number in (0, 1)]
    assert [process.wait(60) for process in processes] == [0, 0]
    alone = joint(0, 1)
    for number in (0, 1):
        together = torch.load(tmp_path / f"{number}.pt")
        torch.testing.assert_close(together[0], alone[0], rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(together[1], alone[1], equal_nan=True)
        assert together[2] == pytest.approx(alone[2], rel=1e-5)


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda base: StepwiseVariation(base, weight="papper"), ValueError, "Did you mean 'paper'"),
        (
            lambda base: StepwiseVariation(base, target="local"),
            ValueError,
            "target must be global or per_level, got target='local'",
        ),
        (
            lambda base: StepwiseVariation(base, estimator="jvp"),
            ValueError,
            "estimator must be finite_difference or vjp, got",
        ),
        (
            lambda base: StepwiseVariation(base, every=0),
            ValueError,
            "every must be a whole number >= 1, got every=0",
        ),
        (
            lambda base: StepwiseVariation(base, strength=-1),
            ValueError,
            "strength must be >= 0, got strength=-1",
        ),
        (lambda base: StepwiseVariation(base, rate=0), ValueError, r"rate must lie in \(0, 1\], got rate=0"),
        (lambda base: StepwiseVariation("dsm"), TypeError, "base_loss must be a loss of scoregen.losses, got str"),
        (lambda base: FiniteDifference(0.0), ValueError, "h must be > 0 and finite, got h=0.0"),
    ],
)
def test_mistakes_are_named(build, error, text):
    with pytest.raises(error, match=text):
        build(DenoisingScoreMatching())


def test_a_loss_without_a_denoiser_is_refused():
    class Other(nn.Linear):
        sde = VP()

    with pytest.raises(ValueError, match="base_loss must call the denoiser with a gradient"):
        StepwiseVariation(_Constant())(Other(1, 1), data(), None, draws())


class _Constant(CrossEntropy):
    def forward(self, model, x_0, label=None, generator=None, quantile=None):
        return x_0.sum(1)


def test_a_base_loss_that_differentiates_through_its_points_is_what_it_was_alone():
    class Steep(Loss):
        def forward(self, model, x_0, label=None, generator=None, quantile=None):
            y = model.sde.to_chart(x_0).detach().requires_grad_()
            u = y + randn(y.shape, generator, y.dtype)
            (slope,) = torch.autograd.grad(model(u, 1.0).sum(), y, create_graph=True)
            return slope.flatten(1).sum(1)

    model = denoiser(EDM())
    alone = Steep()(model, data(), None, draws())
    for estimator in ("vjp", "finite_difference"):
        loss = StepwiseVariation(Steep(), "eq8", "global", estimator, strength=1e-12)
        loss.at(0, 2)
        torch.testing.assert_close(loss(model, data(), None, draws()), alone)


if __name__ == "__main__":
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=number, world_size=2)
    torch.save(joint(number, 2), folder / f"{number}.pt")
    dist.destroy_process_group()
