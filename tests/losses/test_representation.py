r"""Representation consistency: InfoNCE by hand, one noise a path, published schedules, processes and resuming."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import COMMON, mnist_like, numbers, train, weights
from torch import nn

import scoregen
from scoregen.data import Augmentation
from scoregen.losses import Momentum, RepresentationConsistency, Resolution
from scoregen.losses.representation import info_nce
from scoregen.models import ViTClassifier
from scoregen.rng import generators
from scoregen.smoothing import Gaussian, SmoothedClassifier

TAU = 0.2


def two_sets(n=5, d=3):
    g = torch.Generator().manual_seed(0)
    return (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))


def by_hand(queries, keys, tau=TAU):
    r"""-log softmax of the cosine of each query with its own key, in Python's floats."""
    losses = []
    for n, q in enumerate(queries.tolist()):
        cosines = [
            sum(a * b for a, b in zip(q, k, strict=True)) / (math.hypot(*q) * math.hypot(*k)) for k in keys.tolist()
        ]
        losses.append(-math.log(math.exp(cosines[n] / tau) / sum(math.exp(c / tau) for c in cosines)))
    return losses


def test_info_nce_is_the_log_loss_of_the_own_key():
    queries, keys = two_sets()
    assert info_nce(queries, keys, TAU).tolist() == pytest.approx(by_hand(queries, keys), abs=1e-12)


def test_info_nce_ignores_lengths_and_is_zero_for_keys_far_apart():
    queries, keys = two_sets()
    torch.testing.assert_close(info_nce(3 * queries, keys / 7, TAU), info_nce(queries, keys, TAU))
    eye = torch.eye(5, dtype=torch.float64)
    assert float(info_nce(eye, eye, 0.01).max()) < 1e-40


def test_autocast_does_not_round_the_logits():
    queries, keys = (v.float() for v in two_sets())
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(queries, keys, TAU)
    assert found.tolist() == pytest.approx(by_hand(queries, keys), rel=1e-5)


@pytest.mark.parametrize(
    ("step", "points"), [(0, 21), (1, 41), (431, 41), (432, 81), (999, 81)], ids=lambda value: str(value)
)
def test_the_grid_doubles_as_published(step, points):
    r"""K = 1000: K' = ceil(1000/log2 5) = 431; N - 1 = 20, 40, 80."""
    assert Resolution()(step, 1000) == points


def test_the_grid_of_times_is_even_in_the_seventh_root():
    loss = RepresentationConsistency(Same())
    loss.at(500, 1000)
    t = loss.times()
    roots = t ** (1 / 7)
    assert len(t) == 81
    assert (t[0].item(), t[-1].item()) == pytest.approx((80.0, 0.002), rel=1e-12)
    torch.testing.assert_close(roots.diff(), (roots[-1] - roots[0]).expand(80) / 80)


@pytest.mark.parametrize("step", [0, 10, 300, 1000])
def test_the_target_s_decay_follows_the_published_sigmoid(step):
    r"""2 sigmoid(z) - 1 = tanh(z/2), an independent form."""
    e = math.hypot(0.99 * math.sqrt(1 - step / 1000), 0.9999 * math.sqrt(step / 1000))
    c = math.tanh(7.5 * (e - 0.99) / 0.0099)
    assert Momentum()(step, 1000) == pytest.approx(0.9999 * c + 0.99 * (1 - c), abs=1e-14)


class Same(Augmentation):
    def __call__(self, x, generator):
        return x


class Half(Augmentation):
    def __call__(self, x, generator):
        return x / 2


class Linear(nn.Module):
    r"""A representation that is linear in u and depends on t; the projection is linear too. Records its inputs."""

    def __init__(self, d=6):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(d, 4, dtype=torch.float64))
        self.outer = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
        self.seen = []

    def to_chart(self, x):
        return 2 * x - 1

    def represent(self, u, t):
        self.seen.append((u, float(t)))
        return torch.tanh(u @ self.weight) + t

    def project(self, representation):
        return representation @ self.outer


def prepared(step=2, **arguments):
    model = Linear()
    loss = RepresentationConsistency(Half(), Same(), **arguments)
    loss.begin(model)
    with torch.no_grad():
        model.outer.add_(1.0)
    loss.at(step, 10)
    return model, loss, torch.rand(5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_one_noise_serves_both_views_and_both_points_of_the_path():
    model, loss, x = prepared()
    loss(model, x, None, generators(0, 1, 2, range(5)))
    y, found = 2 * x - 1, model.seen
    (first, low), (second, same), (upper, t), (lower, below) = found
    eps = (second - y) / low
    assert low == same == 0.002
    torch.testing.assert_close((first - (x - 1)) / low, eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((upper - y) / t, eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((lower - y) / below, eps, rtol=1e-9, atol=1e-9)
    grid = loss.times().tolist()
    assert grid.index(t) + 1 == grid.index(below)


def test_the_loss_is_the_sum_of_its_three_terms():
    model, loss, x = prepared()
    found = loss(model, x, None, generators(0, 1, 2, range(5)))
    (first, low), (second, _), (upper, t), (lower, below) = model.seen
    online, target = ((lambda u, m=m: m.project(torch.tanh(u @ m.weight) + low)) for m in (model, loss.target))
    terms = [
        by_hand(online(first), target(second)),
        by_hand(online(second), target(first)),
        by_hand(torch.tanh(upper @ model.weight) + t, torch.tanh(lower @ model.weight) + below),
    ]
    assert found.tolist() == pytest.approx([sum(parts) for parts in zip(*terms, strict=True)], abs=1e-9)
    assert loss.metrics()["consistency"] == pytest.approx(sum(terms[2]) / 5, rel=1e-6)


def test_gradients_stop_at_the_keys():
    r"""With keys held fixed, the analytic gradient is that of the queries alone (finite differences)."""
    model, loss, x = prepared()
    draw = lambda: generators(0, 1, 2, range(5))  # noqa: E731
    loss(model, x, None, draw()).sum().backward()
    (first, low), (second, _), (upper, t), (lower, below) = model.seen[:4]
    keys = [loss.target.project(torch.tanh(u @ loss.target.weight) + low) for u in (first, second)]
    fixed = (torch.tanh(lower @ model.weight) + below).detach()

    def value():
        q = [model.project(torch.tanh(u @ model.weight) + low) for u in (first, second)]
        terms = by_hand(q[0], keys[1]), by_hand(q[1], keys[0]), by_hand(torch.tanh(upper @ model.weight) + t, fixed)
        return sum(map(sum, terms))

    for parameter in (model.weight, model.outer):
        for place in ((0, 1), (3, 2)):
            with torch.no_grad():
                parameter[place] += 1e-6
                high = value()
                parameter[place] -= 2e-6
                slope = (high - value()) / 2e-6
                parameter[place] += 1e-6
            assert parameter.grad[place].item() == pytest.approx(slope, abs=1e-6)
    assert all(p.grad is None for p in loss.target.parameters())


def test_the_target_moves_once_a_step_whatever_the_number_of_micro_batches():
    model, loss, x = prepared(step=0)
    start, now = loss.target.outer.clone(), model.outer.detach()
    loss(model, x)
    assert torch.equal(loss.target.outer, start)  # before the first step there is nothing to follow
    loss.at(1, 10)
    loss(model, x)
    loss(model, x)
    beta = Momentum()(0, 10)
    torch.testing.assert_close(loss.target.outer.detach(), beta * start + (1 - beta) * now)


def small(shape=(1, 4, 4)):
    torch.manual_seed(0)
    return ViTClassifier(
        shape, 3, patch_size=2, width=8, depth=1, heads=2, hidden=6, projection=5, trainable=("encoder", "projector")
    )


HALF = """
import sys, torch
import torch.distributed as dist
sys.path[:0] = [{root!r}, {tests!r}]
from losses.test_representation import half
dist.init_process_group("gloo", init_method="file://{folder}/meet", rank={rank}, world_size=2)
torch.save(half({rank}), "{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def half(rank: int, world: int = 2) -> list[torch.Tensor]:
    r"""Losses of a process's part of a batch of 6, and gradients of their sum: loss with its model, InfoNCE alone."""
    places = range(6 * rank // world, 6 * (rank + 1) // world)
    part = slice(places.start, places.stop)
    model, loss = small().double(), RepresentationConsistency(Half(), Same())
    loss.begin(model)
    loss.at(4, 10)
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = loss(model, x[part], None, generators(0, 1, 2, places))
    values.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    queries, keys = (v[part].clone().requires_grad_() for v in two_sets(6))
    alone = info_nce(queries, keys, TAU)
    alone.sum().backward()
    statistics = [model.projector.first_norm.running_var, model.projector.second_norm.running_mean]
    return [values.detach(), alone.detach(), queries.grad, keys.grad, *statistics, *gradients]


@pytest.mark.slow
def test_two_processes_compute_the_values_and_gradients_of_the_joint_batch(tmp_path):
    tests = Path(__file__).parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = []
    for rank in (0, 1):
        code = HALF.format(root=str(tests.parent), tests=str(tests), folder=tmp_path, rank=rank)
        processes.append(subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE))
    for process in processes:
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 0, error.decode()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    whole = half(0, 1)
    for i, (expected, a, b) in enumerate(zip(whole, first, second, strict=True)):
        if i < 4:  # rows of samples
            found = torch.cat([a, b])
        elif i < 6:  # running statistics, the same everywhere
            found = a
            assert torch.equal(a, b)
        else:
            found = a + b
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10, msg=f"entry {i}")


class Toy(nn.Module):
    r"""A perceptron of (c_in u, log t)."""

    def __init__(self, d=8, width=64):
        super().__init__()
        layers = [nn.Linear(d + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 16)]
        self.net = nn.Sequential(*layers)

    def to_chart(self, x):
        return x

    def represent(self, u, t):
        t = torch.as_tensor(t).to(u).expand(len(u), 1)
        return self.net(torch.cat([u * (t * t + 0.25).rsqrt(), t.log() / 4], 1))

    def project(self, representation):
        return representation


class IndependentNoise(RepresentationConsistency):
    r"""Broken on purpose: fresh noise at the lower point."""

    def _lower_noise(self, eps):
        return torch.randn(eps.shape)


def trajectory_recall(loss: RepresentationConsistency) -> float:
    r"""How often, after 150 steps, the token at t = .1 is nearest to that of its own path's end, of 256 samples."""
    torch.manual_seed(0)
    model, g = Toy(), torch.Generator().manual_seed(0)
    centres = 0.7 * torch.randn(10, 8, generator=g)

    def data(n):
        return centres[torch.randint(10, (n,), generator=g)] + 0.3 * torch.randn(n, 8, generator=g)

    loss.begin(model)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(150):
        loss.at(step, 150)
        optimizer.zero_grad()
        loss(model, data(64), None, g).mean().backward()
        optimizer.step()
    x, eps = data(256), torch.randn(256, 8, generator=g)
    with torch.no_grad():
        tokens = (nn.functional.normalize(model.represent(x + t * eps, t), dim=1) for t in (0.1, 0.002))
        a, b = tokens
    return (a @ b.T).argmax(1).eq(torch.arange(256)).double().mean().item()


def test_shared_noise_keeps_a_path_together_and_independent_noise_does_not():
    r"""Negative control: .89 against .65."""
    shared, independent = (trajectory_recall(c(Same())) for c in (RepresentationConsistency, IndependentNoise))
    assert shared > independent + 0.1


DIGITS = [
    "data=digits",
    "model=vit",
    "loss=representation",
    "+data.augmentation={_target_:scoregen.data.Shift,pixels:1}",
    *("loss.views._target_=scoregen.data.Shift", "+loss.views.pixels=1"),
    *("model.width=8", "model.depth=1", "model.heads=2", "model.hidden=8", "model.projection=8"),
    "model.trainable=[encoder,projector]",
    *COMMON,
]
RUN = [*DIGITS, "trainer.steps=5", "trainer.checkpoint_every=2"]


def test_resuming_a_pre_training_is_exact_with_the_target_in_the_checkpoint(tmp_path):
    whole = train(tmp_path / "whole", *RUN)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", *RUN, early_stopping={"_target_": "tiny.Kill", "every": 3})
    resumed = train(tmp_path / "killed", *RUN, "trainer.resume=auto")
    expected, found = weights(whole), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    name = "encoder.patches.weight"
    assert not torch.equal(found[f"loss.target.{name}"], found[name])


def test_each_stage_starts_from_the_last_one_s_checkpoint(tmp_path):
    first = train(tmp_path / "pretrain", *RUN)
    later = [o for o in RUN if not o.startswith(("loss", "+loss", "model.train"))]
    probe = train(
        tmp_path / "probe",
        *later,
        "loss=cross_entropy",
        "loss.noise_sigma=0.5",
        "model.trainable=[head]",
        f"init={first}",
    )
    tuned = train(
        tmp_path / "tuned", *later, "loss=consistency_regularization", "trainer.layer_decay=0.75", f"init={probe}"
    )
    names = ("encoder.patches.weight", "head.weight")
    a, b, c = (weights(f) for f in (first, probe, tuned))
    averages = weights(first, "ema")
    assert torch.equal(b[names[0]], averages[names[0]])
    assert not torch.equal(a[names[1]], b[names[1]])
    assert not torch.equal(b[names[0]], c[names[0]])


def test_the_stages_select_on_held_out_images_and_end_in_a_certificate(tmp_path):
    r"""Pre-training without labels; a probe that is killed and resumed; each stage from the best of the last."""
    mnist_like(tmp_path, "MNIST", 40)
    tiny = [f"model.{key}" for key in ("width=8", "depth=1", "heads=2", "hidden=8", "projection=8")]
    common = [*tiny, f"data.root={tmp_path}", "data.validation=8", "trainer.steps=4", "trainer.checkpoint_every=1"]
    common += ["trainer.batch_size=8", "trainer.schedule.warmup=1"]
    first = train(tmp_path / "first", "+experiment=rrcm/pretrain", *common)
    later = [*common, "accuracy.every=2"]
    probing = ["+experiment=rrcm/probe", *later, f"init={first}"]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "probe", *probing, early_stopping={"_target_": "tiny.Kill", "every": 3})
    probe = train(tmp_path / "probe", *probing) / "checkpoints" / "best"
    tuned = train(tmp_path / "tuned", "+experiment=rrcm/finetune", *later, f"init={probe}")
    assert torch.equal(weights(probe.parents[1])["encoder.positions"], weights(first, "ema")["encoder.positions"])
    assert len([line for line in numbers(tmp_path / "probe") if "accuracy" in line]) == 2
    classifier = scoregen.load(tuned / "checkpoints" / "best")
    certificate = SmoothedClassifier(classifier, Gaussian(0.5), 10).certify(torch.rand(1, 1, 28, 28), n=100)[0]
    assert certificate.counts.sum() == 100


BAD = {
    "sigma": (
        {"sigma_min": 2.0, "sigma_max": 1.0},
        "0 < sigma_min < sigma_max < inf, got sigma_min=2.0, sigma_max=1.0",
    ),
    "temperature": ({"temperature": 0.0}, "temperature must be > 0 and finite, got temperature=0.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused(case):
    arguments, text = BAD[case]
    with pytest.raises(ValueError, match=text):
        RepresentationConsistency(Same(), **arguments)


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="last must be a whole number >= 5, got last=4"):
        Resolution(5, 4)
    with pytest.raises(ValueError, match=r"last must lie in \[0.9, 1\), got last=1.0"):
        Momentum(0.9, 1.0)
