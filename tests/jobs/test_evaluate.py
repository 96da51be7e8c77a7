import json

import numpy as np
import pytest
import torch
from tiny import job

from scoregen.data import Digits
from scoregen.errors import UserError
from scoregen.jobs.calls import network_calls
from scoregen.samplers import DDIM, ExponentialABM, Heun
from scoregen.sde import EDM

SDE = {"_target_": "scoregen.sde.EDM", "sigma_min": 0.002, "sigma_max": 80.0}
MODEL = {"_target_": "scoregen.models.Denoiser", "network": {"_target_": "scoregen.models.UNet", "shape": [1, 8, 8]}}
PIXELS = {"_target_": "scoregen.metrics.Pixels"}
FAST = {"_target_": "scoregen.metrics.Settings", "bootstrap": 0, "subset": 100}


def checkpoint(folder):
    r"""As much of a checkpoint as counting needs."""
    import yaml

    folder.mkdir()
    (folder / "state.json").write_text("{}")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": MODEL, "sde": SDE}))
    return folder


def run(out, name="evaluate", **changes):
    r"""A job on digits with quick settings."""
    nodes = {"data": {"_target_": "scoregen.data.Digits"}, "metrics": FAST, "cache": None}
    nodes["features"] = {"_target_": "scoregen.metrics.RandomConvolution", "channels": None}
    return job(name, **nodes | changes).run(out)


@pytest.mark.parametrize(
    ("sampler", "calls"), [(Heun(18), 35), (DDIM(8), 8), (ExponentialABM(18), 18)], ids=["heun", "ddim", "abm"]
)
def test_network_calls_are_counted(sampler, calls):
    assert network_calls(sampler, EDM()) == calls


def test_counting_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    network_calls(DDIM(3, eta=1.0), EDM())
    found = torch.rand(())
    torch.manual_seed(0)
    assert found == torch.rand(())


def test_a_record_builds_nothing(tmp_path):
    r"""A samples folder may come from anywhere."""
    record = {"sampler": {"_target_": "os.mkdir", "path": str(tmp_path / "made")}, "guidance": 1.0, "checkpoint": "x"}
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy())
    (tmp_path / "job.json").write_text(json.dumps(record))
    run(tmp_path / "out", samples=str(tmp_path))
    assert not (tmp_path / "made").exists()


def test_samples_of_another_shape_are_refused_before_they_are_made(tmp_path):
    made = checkpoint(tmp_path / "checkpoint")
    with pytest.raises(UserError, match="the model makes"):
        run(tmp_path / "out", checkpoint=str(made), data={"_target_": "scoregen.data.Toy2D"})
    with pytest.raises(UserError, match="n must be >= 3, got n=1"):
        run(tmp_path / "out", checkpoint=str(made), n=1)
    assert not (tmp_path / "out").exists()


def test_an_evaluation_that_fails_leaves_the_folder_free(tmp_path):
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy())
    with pytest.raises(UserError, match="samples: "):
        run(tmp_path / "out", samples=str(tmp_path), data={"_target_": "scoregen.data.Toy2D"}, features=PIXELS)
    run(tmp_path / "out", samples=str(tmp_path))


def test_numbers_of_other_settings_are_not_overwritten(tmp_path):
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy())
    run(tmp_path / "out", samples=str(tmp_path))
    found = (tmp_path / "out" / "metrics.json").read_bytes()
    run(tmp_path / "out", samples=str(tmp_path))
    with pytest.raises(UserError, match=r"holds other results: metrics.subset was 100, now 50"):
        run(tmp_path / "out", samples=str(tmp_path), metrics=FAST | {"subset": 50})
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy()[::-1])
    with pytest.raises(UserError, match=r"holds other results: samples_sha256 was"):
        run(tmp_path / "out", samples=str(tmp_path))
    assert (tmp_path / "out" / "metrics.json").read_bytes() == found


@pytest.mark.parametrize("scale, shift", [(2, -1), (255, 0)], ids=["signed", "bytes"])
def test_samples_in_other_units_are_refused_and_not_cut(tmp_path, capsys, scale, shift):
    x = Digits().test.x.numpy()
    np.savez(tmp_path / "samples.npz", images=scale * x + shift)
    with pytest.raises(UserError, match=rf"run from {shift} to {scale + shift}, and those of digits lie in \[0, 1\]"):
        run(tmp_path / "out", samples=str(tmp_path))
    np.savez(tmp_path / "samples.npz", images=x / 255)
    run(tmp_path / "out", samples=str(tmp_path))
    assert "the samples of '" in (said := capsys.readouterr().err) and "hardly vary" in said


def test_samples_are_measured_with_their_record(tmp_path, capsys):
    r"""Digits' own held-out images as samples, recorded as of Heun with guidance: 2 x 35 calls."""
    record = {"sampler": {"_target_": "scoregen.samplers.Heun", "steps": 18}, "guidance": 2.0, "seed": 5}
    record |= {"checkpoint": str(checkpoint(tmp_path / "checkpoint")), "weights": "ema", "label": "all"}
    record |= {"precision": "no", "network_calls": 70}
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy())
    (tmp_path / "job.json").write_text(json.dumps(record))
    run(tmp_path / "out", samples=str(tmp_path))
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    protocol = found["metrics"][0]["protocol"]
    assert (protocol["network_calls"], protocol["sampler"], protocol["seed"]) == (70, "Heun", 5)
    assert found["metrics"][0]["value"] == pytest.approx(found["metrics"][0]["floor"])
    assert "labels were assigned round-robin" in found["warnings"][-1]
    assert "| FD-random" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "give one of samples=PATH and checkpoint=PATH"),
        ({"samples": "a", "checkpoint": "b"}, "give one of samples=PATH"),
        ({"samples": "a", "n": 5}, "n: needs checkpoint=..., which makes samples, got n=5. Leave it out"),
        ({"samples": "a", "guidance": 2.0}, "guidance: needs checkpoint=..."),
        ({"samples": 5}, "samples: must be a text or null, got 5"),
        ({"samples": "a", "cache": 5}, "cache: must be a text or null, got 5"),
        ({"checkpoint": "a", "n": "abc"}, "n: must be an integer, got 'abc'"),
        ({"checkpoint": "a", "weights": "emma"}, r"weights: must be ema, model or ema:LENGTH \(ema:0.08\), got 'emma'"),
        ({"sample": "a"}, "sample: .*Did you mean 'samples'"),
    ],
    ids=str,
)
def test_mistakes_stop_before_any_work(tmp_path, changes, text):
    with pytest.raises(UserError, match=text):
        run(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"samplers": "ddim"}, "samplers: must be a list of texts, got 'ddim'"),
        ({"samplers": []}, "samplers: must not be an empty list"),
        ({"samplers": ["adaptive_flow"]}, "samplers: 'adaptive_flow' chooses its steps itself"),
        ({"samplers": ["hein"]}, "sampler: there is no option 'hein'. Did you mean 'heun'"),
        ({"calls": [0]}, "calls must be >= 1, got calls=0"),
        ({"calls": [True]}, "must be an integer, got True"),
        ({"n": 2}, "n must be >= 3, got n=2"),
        ({"sampler": PIXELS}, "sampler: 'sampler' is not an argument of scoregen.jobs.Sweep. Did you mean 'samplers'"),
    ],
    ids=str,
)
def test_mistakes_of_a_sweep_stop_before_any_work(tmp_path, changes, text):
    made = checkpoint(tmp_path / "checkpoint")
    with pytest.raises(UserError, match=text):
        run(tmp_path / "out", "sweep", **{"checkpoint": str(made)} | changes)
    assert not (tmp_path / "out").exists()
