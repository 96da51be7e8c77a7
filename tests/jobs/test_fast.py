r"""Jobs that use a trained network compile it where they are told to, and make the same samples."""

import numpy as np
import pytest
import torch
from tiny import DIGITS, TOY, command, job, train
from torch import nn

from scoregen import jobs
from scoregen.errors import UserError
from scoregen.jobs.fast import FastJob


@pytest.fixture
def compiled(monkeypatch):
    r"""The networks that were compiled, by AOTAutograd alone: code generation for a CPU takes a minute."""
    found = []

    def compile(self, **options):
        found.append((type(self).__name__, options["options"]["fallback_random"]))
        self._compiled_call_impl = torch.compile(self._call_impl, backend="aot_eager", dynamic=options["dynamic"])

    monkeypatch.setattr(nn.Module, "compile", compile)
    return found


def test_compiled_samples_are_the_samples(tmp_path, compiled):
    run = train(tmp_path / "run", *TOY, "trainer.steps=2")
    options = [f"checkpoint={run}", "n=3", "batch_size=2", "format=npz", "sampler.steps=2"]
    made = [job("sample", *options, *more).run(tmp_path / str(k)) for k, more in enumerate(([], ["compile=true"]))]
    assert compiled == [("MLP", True)]
    plain, fast = (np.load(out / "samples.npz")["images"] for out in made)
    np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"compile was None, now True"):
        job("sample", *options, "compile=true").run(tmp_path / "0")


def test_without_a_word_a_cpu_compiles_nothing_and_an_accelerator_long_jobs(tmp_path, compiled, monkeypatch):
    run = train(tmp_path / "run", *TOY, "trainer.steps=1")
    options = [f"checkpoint={run}", "format=npz", "dry_run=true"]
    job("sample", *options, "n=5000").run(tmp_path / "a")
    assert not compiled
    monkeypatch.setattr("scoregen.models.compiled.compiles", lambda device: True)
    job("sample", *options, "n=4999").run(tmp_path / "b")
    assert not compiled
    job("sample", *options, "n=5000").run(tmp_path / "c")
    assert compiled == [("MLP", True)]


def test_a_certified_classifier_is_compiled(tmp_path, compiled):
    model = ["model=classifier_fast", "model.channels=[4]", "model.blocks=[0]", "model.hidden=8", "loss=cross_entropy"]
    run = train(tmp_path / "run", "data=digits", *model, *DIGITS[3:], "trainer.steps=1")
    options = ["data=digits", f"checkpoint={run}", "n=200", "max_inputs=1", "method=fixed", "compile=true"]
    out = job("certify", *options).run(tmp_path / "c")
    assert compiled == [("Classifier", True)] and (out / "table.md").exists()


def test_every_job_that_uses_a_network_has_the_key(capsys):
    kinds = [getattr(jobs, name) for name in jobs.__all__]
    fast = [kind.name() for kind in kinds if isinstance(kind, type) and issubclass(kind, FastJob)]
    assert {"certify", "predict", "dual", "sample", "evaluate"} <= set(fast)
    for name in fast:
        assert command(name, "--help") == 0
        assert "\n  compile: null" in capsys.readouterr().out
