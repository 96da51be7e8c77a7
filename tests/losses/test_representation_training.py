r"""Pre-training of representations: two processes, resuming, the stages of rRCM."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from representation_parts import TAU, Half, Same, two_sets
from tiny import COMMON, mnist_like, numbers, train, weights
from torch import nn

import scoregen
from scoregen.losses import RepresentationConsistency
from scoregen.losses.representation import info_nce
from scoregen.models import ViTClassifier
from scoregen.rng import generators
from scoregen.smoothing import Gaussian, SmoothedClassifier


def small(shape=(1, 4, 4)):
    torch.manual_seed(0)
    return ViTClassifier(
        shape, 3, patch_size=2, width=8, depth=1, heads=2, hidden=6, projection=5, trainable=("encoder", "projector")
    )


HALF = """
import sys, torch
import torch.distributed as dist
sys.path[:0] = [{root!r}, {tests!r}]
from losses.test_representation_training import half
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
