r"""Predictions from the command: labels, abstentions, names and files, and a run that goes on."""

import csv
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import job
from torch import nn

from scoregen.errors import UserError
from scoregen.smoothing.prediction import make_vote
from scoregen.smoothing.results import load

SIZE = 4


class Brighter(nn.Module):
    r"""Two classes: whether the mean of a picture is above 1/2."""

    def forward(self, x):
        margin = x.flatten(1).mean(1) - 0.5
        return torch.stack((-margin, margin), 1)


def network():
    return Brighter().eval()


class Named(Brighter):
    r"""As a model of transformers, with names of its classes."""

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"id2label": {1: "light", 0: "dark"}})()


def named():
    return Named().eval()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    r"""A dark, a grey (a tie), a light picture and a folder with another dark one; no labels."""
    monkeypatch.setitem(sys.modules, "brighter", sys.modules[__name__])
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, value in (("a_dark", 20), ("b_grey", 127), ("c_light", 240), ("d_dark", 40)):
        grey = np.full((SIZE, SIZE), value, dtype=np.uint8)
        if value == 127:
            grey[:, ::2] = 128  # a mean of exactly 1/2
        Image.fromarray(grey).save(folder / f"{name}.png")
    return folder


def predict(photos, *overrides, **nodes):
    given = {"classifier": "brighter:network"} | nodes
    return job("predict", f"data.path={photos}", "noise.sigma=0.5", "n=500", *overrides, **given)


def rows(out):
    with (out / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_folder_gets_labels_abstentions_and_the_names_of_its_files(photos, tmp_path, capsys):
    out = predict(photos, class_names=["dark", "light"]).run(tmp_path / "out")
    found = rows(out)
    assert [row["file"] for row in found] == ["a_dark.png", "b_grey.png", "c_light.png", "d_dark.png"]
    assert [row["label"] for row in found] == ["0", "-1", "1", "0"]
    assert [row["name"] for row in found] == ["dark", "", "light", "dark"]
    assert {int(row["n"]) for row in found if row["label"] != "-1"} == {32}  # clear at the first look
    printed = capsys.readouterr().out
    assert "predicting 4 of 4 images, all that the data have (data.test=all)" in printed
    assert "3 of 4 inputs have a label; " in printed
    record = load(out, "predictions").records[0]
    assert record["counts"] == [32, 0] and record["candidate"] == 0


def test_a_run_goes_on_where_it_stopped_and_refuses_another_job(photos, tmp_path):
    out = predict(photos).run(tmp_path / "out")
    file, table = out / "predictions.jsonl", (out / "predictions.csv").read_bytes()
    whole = file.read_text()
    file.write_text("".join(whole.splitlines(keepends=True)[:3]))
    (out / "predictions.csv").unlink()
    predict(photos).run(out)
    assert file.read_text() == whole
    assert (out / "predictions.csv").read_bytes() == table
    with pytest.raises(UserError, match=r"holds other results: alpha was 0.001, now 0.01"):
        predict(photos, "alpha=0.01").run(out)


def test_a_dry_run_writes_nothing(photos, tmp_path, capsys):
    predict(photos, "dry_run=true").run(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "classes: 2, without names" in capsys.readouterr().out


def test_names_are_those_of_the_model_unless_they_are_given(photos, tmp_path):
    out = predict(photos, classifier="brighter:named").run(tmp_path / "out")
    assert [row["name"] for row in rows(out)] == ["dark", "", "light", "dark"]
    with pytest.raises(UserError, match="class_names: must name 2 classes, got 3"):
        predict(photos, class_names=["a", "b", "c"]).run(tmp_path / "other")


def test_both_methods_agree_and_the_sequential_one_draws_less(photos, tmp_path):
    found = {m: load(predict(photos, f"method={m}").run(tmp_path / m), "predictions") for m in ("fixed", "sequential")}
    labels = {m: [record["predicted"] for record in run.records] for m, run in found.items()}
    assert labels["fixed"] == labels["sequential"] == [0, -1, 1, 0]
    drawn = {m: sum(record["n"] for record in run.records) for m, run in found.items()}
    assert drawn["sequential"] < drawn["fixed"] == 4 * 500
    assert found["sequential"].header["method"] == repr(make_vote("sequential", 500, 1e-3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 5}, "n must be at least 11"),
        ({"method": "ladder"}, "method: must be sequential or fixed"),
        ({"classifier": None}, "give one of checkpoint=PATH"),
        ({"precision": None}, "precision: must be no, bf16 or fp16"),
        ({"alpha": 0.7}, "alpha must lie in"),
    ],
)
def test_mistakes_are_one_message(photos, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        predict(photos, **change).run(tmp_path / "out")
