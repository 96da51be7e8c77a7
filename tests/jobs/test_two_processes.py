r"""Jobs of two processes compute what one does, and end together."""

import json

import numpy as np
import pytest
import torch
from pairs import pair
from tiny import TOY, numbers, pixels, sample, torchrun, train, weights

from scoregen import load

SAMPLING = ["n=5", "sampler.steps=2", "label=all"]


def test_two_processes_compute_what_one_does(digits, tmp_path):
    r"""Training to the rounding of float32 sums in another order; sampling to one grey level."""
    overrides = [*TOY, "trainer.steps=4", "+trainer.optimizer.eps=1e-4", "trainer.checkpoint_every=2"]
    training = torchrun(tmp_path, "train.py", *overrides, "hydra.run.dir=two")
    sampling = pair(tmp_path, "sample.py", f"checkpoint={digits}", *SAMPLING, "out=images")
    one, alone = train(tmp_path / "one", *overrides), sample(digits, tmp_path / "alone", *SAMPLING)
    for process in (training, sampling):
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
        assert output.count("checkpoint:") == (process is sampling)
    for name in ("model", "ema"):
        expected, found = weights(one, name), weights(tmp_path / "two", name)
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=2e-6)
    for line, other in zip(numbers(one), numbers(tmp_path / "two"), strict=True):
        assert line == pytest.approx(other, rel=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone", "images", "one", "two"]
    assert np.abs(pixels(alone) - pixels(tmp_path / "images")).max() <= 1
    assert json.loads((tmp_path / "images" / "job.json").read_text())["seed"] == 0


def test_a_hook_that_fails_on_one_process_ends_both_with_a_checkpoint(tmp_path):
    overrides = [*TOY, "trainer.steps=4", "trainer.checkpoint_every=4", "preview.every=3", "preview.n=4"]
    overrides += ["sampler.steps=2", "hydra.run.dir=two"]
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "samples").touch()  # where the first process wants a folder
    process = pair(tmp_path, "train.py", *overrides)
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "Preview: process 0 failed (FileExistsError" in output
    assert (tmp_path / "two" / "checkpoints" / "last").resolve().name == "step_00000003"
    (tmp_path / "two" / "samples").unlink()
    process = pair(tmp_path, "train.py", *overrides, "trainer.resume=auto")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert sorted(p.name for p in (tmp_path / "two" / "samples").iterdir()) == [
        "step_00000003.png",
        "step_00000004.png",
    ]


GATHERS = """
import sys
from scoregen.command_line import run_job
from scoregen.parallel import gather, rank
from scoregen.training import Hook
import scoregen.monitors

class Gathers(scoregen.monitors.Preview):
    def __call__(self, moment):
        if rank() == 1:
            raise MemoryError("no memory left")
        gather(1)
        gather(2)

scoregen.monitors.Preview = Gathers
run_job("train")
"""


def test_a_hook_that_fails_before_the_processes_meet_in_it_ends_both(tmp_path):
    (tmp_path / "gathers.py").write_text(GATHERS)
    overrides = [*TOY, "trainer.steps=4", "trainer.checkpoint_every=4", "preview.every=3", "hydra.run.dir=two"]
    process = pair(tmp_path, str(tmp_path / "gathers.py"), *overrides)
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "Gathers: process 1 failed (MemoryError: no memory left)" in output
    assert (tmp_path / "two" / "checkpoints" / "last").resolve().name == "step_00000003"


def test_the_accuracy_of_two_processes_is_that_of_the_saved_weights(tmp_path):
    r"""Batch statistics are each process's own, those of the first one are saved."""
    from scoregen.data import Digits

    overrides = [
        "data=digits",
        "model=classifier",
        "model.channels=[4]",
        "model.blocks=[1]",
        "loss=cross_entropy",
        "preview.every=null",
    ]
    overrides += ["trainer.steps=60", "trainer.batch_size=8", "trainer.precision=no", "accuracy.every=10"]
    overrides += ["trainer.checkpoint_every=10", "trainer.keep_last=9", "+accuracy.batch_size=20"]
    overrides += ["trainer.optimizer.lr=0.02", "trainer.schedule.warmup=0"]
    process = pair(tmp_path, "train.py", *overrides, "trainer.ema_halflife=0", "hydra.run.dir=two")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    logged = {line["step"]: line["accuracy"] for line in numbers(tmp_path / "two") if "accuracy" in line}
    x, label = Digits().test.in_units(slice(None))
    assert len(logged) == 6
    for step, accuracy in logged.items():
        model = load(tmp_path / "two" / "checkpoints" / f"step_{step:08d}")
        assert accuracy == pytest.approx((model(x).argmax(1) == label).double().mean().item(), abs=1e-12)
