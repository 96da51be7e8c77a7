r"""What an evaluation says by noise level, of models that were trained in the tests."""

import json

import pytest
from tiny import DIGITS, job, train

from scoregen.errors import UserError

EVALUATION = {
    "data": {"_target_": "scoregen.data.Digits"},
    "features": {"_target_": "scoregen.metrics.RandomConvolution", "channels": None},
    "metrics": {"_target_": "scoregen.metrics.Settings", "bootstrap": 0, "subset": 20},
    "sampler": {"_target_": "scoregen.samplers.DDIM", "steps": 1},
    "cache": None,
    "n": 20,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return train(tmp_path_factory.mktemp("run"), *DIGITS, "trainer.steps=2")


def test_numbers_curves_and_details_are_written(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("scoregen.jobs.levels.POINTS", 40)
    wanted = {"dimension": True, "memorisation": True, "information": True}
    out = job("evaluate", **EVALUATION, checkpoint=str(checkpoint), **wanted).run(tmp_path / "out")
    asked = "40 of 180 test images, held out of 1,797 and 40 of 1,617 training images"
    assert f"by noise level: dimension, memorisation, information; of {asked}" in capsys.readouterr().out
    found = json.loads((out / "metrics.json").read_text())
    numbers = {n["name"]: n for n in found["metrics"]}
    assert 0.2 < numbers["AUROC of residuals"]["value"] < 0.8 and numbers["AUROC of residuals"]["floor"] == 0.5
    told = numbers["information of labels"]
    assert told["low"] <= told["value"] <= told["high"] and "log 10 = 2.303" in told["note"]
    details = found["details"]
    assert details["dimension"]["numbers"] == 64 and len(details["dimension"]["mean"]) == 8
    assert len(details["information"]["loss"]) == len(details["information"]["s"]) == 64
    assert all((out / f"{name}.png").is_file() for name in wanted)


def test_measures_of_the_denoiser_need_one(tmp_path):
    with pytest.raises(UserError, match=r"memorisation.*needs checkpoint=\.\.\., whose denoiser is asked"):
        job(
            "evaluate",
            **{k: v for k, v in EVALUATION.items() if k not in ("sampler", "n")},
            samples="x",
            memorisation=True,
        )


def test_information_needs_a_network_that_does_without_labels(tmp_path):
    folder = train(tmp_path / "run", *DIGITS, "trainer.steps=1", "loss.label_dropout=0")
    with pytest.raises(UserError, match=r"never learnt to do without its label\. Train with loss.label_dropout=0.1"):
        job("evaluate", **EVALUATION, checkpoint=str(folder), information=True).run(tmp_path / "out")
    lines = {
        label: job("sample", f"checkpoint={folder}", f"label={label}").plan(tmp_path / "s").lines
        for label in ("null", 3)
    }
    assert "label: none is given, and the training had loss.label_dropout=0, so that" in " ".join(lines["null"])
    assert "label_dropout" not in " ".join(lines[3])
    guided = job("sample", f"checkpoint={folder}", "label=3", "guidance=2").plan(tmp_path / "s").lines
    assert "guidance: 2 asks for samples without a label, and the training had" in " ".join(guided)


def test_without_held_out_data_nothing_stands_in_for_them(checkpoint, tmp_path):
    nodes = EVALUATION | {"data": {"_target_": "scoregen.data.Digits", "test": "none"}}
    with pytest.raises(UserError, match=r"dimension: needs a test part of the data, got none\. Give data\.test=auto"):
        job("evaluate", **nodes, checkpoint=str(checkpoint), dimension=True).run(tmp_path / "out")
