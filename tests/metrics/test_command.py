import json

import numpy as np
import pytest
import torch

from scoregen.commands.calls import network_calls
from scoregen.commands.evaluate import run
from scoregen.data import Digits
from scoregen.errors import UserError
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


def config(**changes):
    base = {
        "samples": None,
        "checkpoint": None,
        "weights": "ema",
        "n": 10000,
        "batch_size": 250,
        "seed": 0,
        "label": None,
    }
    base |= {"guidance": 1.0, "precision": "no", "sweep": None, "calls": [8, 18, 35], "cache": None, "out": None}
    base |= {"metrics": FAST}
    base |= {"data": {"_target_": "scoregen.data.Digits"}, "sampler": {"_target_": "scoregen.samplers.Heun"}}
    return base | {"features": {"_target_": "scoregen.metrics.RandomConvolution", "channels": None}} | changes


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
    (tmp_path / "samples.json").write_text(json.dumps(record))
    run(config(samples=str(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "made").exists()


def test_samples_of_another_shape_are_refused_before_they_are_made(tmp_path):
    made = checkpoint(tmp_path / "checkpoint")
    with pytest.raises(UserError, match="the model makes"):
        run(config(checkpoint=str(made), data={"_target_": "scoregen.data.Toy2D"}), tmp_path / "out")
    with pytest.raises(UserError, match="n: must be >= 2"):
        run(config(checkpoint=str(made), n=1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_evaluation_that_fails_leaves_the_folder_free(tmp_path):
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy())
    out = {"samples": str(tmp_path), "out": str(tmp_path / "out")}
    with pytest.raises(UserError, match="samples: "):
        run(config(**out, data={"_target_": "scoregen.data.Toy2D"}, features=PIXELS), tmp_path)
    run(config(**out), tmp_path)


def test_numbers_of_other_settings_are_not_overwritten(tmp_path):
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy())
    run(config(samples=str(tmp_path), out=str(tmp_path / "out")), tmp_path)
    found = (tmp_path / "out" / "metrics.json").read_bytes()
    run(config(samples=str(tmp_path), out=str(tmp_path / "out")), tmp_path)
    with pytest.raises(UserError, match=r"holds other results \(metrics.subset was 100, now 50"):
        run(config(samples=str(tmp_path), out=str(tmp_path / "out"), metrics=FAST | {"subset": 50}), tmp_path)
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy()[::-1])
    with pytest.raises(UserError, match=r"holds other results \(samples_sha256 was"):
        run(config(samples=str(tmp_path), out=str(tmp_path / "out")), tmp_path)
    assert (tmp_path / "out" / "metrics.json").read_bytes() == found


def test_samples_are_measured_with_their_record(tmp_path, capsys):
    r"""Digits' own held-out images as samples, recorded as of Heun with guidance: 2 x 35 calls."""
    record = {"sampler": {"_target_": "scoregen.samplers.Heun", "steps": 18}, "guidance": 2.0, "seed": 5}
    record |= {"checkpoint": str(checkpoint(tmp_path / "checkpoint")), "weights": "ema", "label": "all"}
    record |= {"precision": "no", "network_calls": 70}
    np.savez(tmp_path / "samples.npz", images=Digits().test.x.numpy())
    (tmp_path / "samples.json").write_text(json.dumps(record))
    run(config(samples=str(tmp_path)), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    protocol = found["metrics"][0]["protocol"]
    assert (protocol["network_calls"], protocol["sampler"], protocol["seed"]) == (70, "Heun", 5)
    assert found["metrics"][0]["value"] == pytest.approx(found["metrics"][0]["floor"])
    assert "labels were dealt out in turn" in found["warnings"][-1]
    assert "| FD-random" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "give one of samples=PATH and checkpoint=PATH"),
        ({"samples": "a", "checkpoint": "b"}, "give one of samples=PATH"),
        ({"samples": "a", "sweep": ["ddim"]}, "sweep: needs checkpoint=PATH"),
        ({"checkpoint": "a", "sweep": "ddim"}, r"sweep: must be a list of samplers such as \[heun,ddim\], got 'ddim'"),
        ({"checkpoint": "a", "sweep": ["ddim"], "calls": [0]}, r"calls: must be a list of integers >= 1"),
        ({"samples": "a", "n": 5}, "n: needs checkpoint=..., which makes samples, got n=5; leave it out"),
        ({"samples": "a", "guidance": 2.0}, "guidance: needs checkpoint=..."),
        ({"checkpoint": "a", "calls": [8]}, r"calls: needs sweep=\[...\]"),
        ({"samples": 5}, "samples: must be a text or null, got 5"),
        ({"samples": "a", "cache": 5}, "cache: must be a text or null, got 5"),
        ({"checkpoint": "a", "n": "abc"}, "n: must be an integer, got 'abc'"),
        ({"checkpoint": "a", "weights": "emma"}, "weights: must be ema or model, got 'emma'"),
        ({"checkpoint": "a", "sweep": ["ddim"], "calls": [True]}, "calls: must be a list of integers >= 1"),
        ({"sample": "a"}, "sample: not a key of the evaluation. Did you mean 'samples'"),
    ],
    ids=str,
)
def test_mistakes_stop_before_any_work(tmp_path, changes, text):
    with pytest.raises(UserError, match=text):
        run(config(**changes), tmp_path)
