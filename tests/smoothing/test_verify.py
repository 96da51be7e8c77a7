r"""Certificates are recomputed from their counts; what was edited, is missing, foreign or double is named."""

import csv
import json
import re

import pytest
import torch

from scoregen.errors import UserError
from scoregen.jobs.compare import _check_comparable
from scoregen.smoothing import Gaussian, LogNormal, SmoothedClassifier
from scoregen.smoothing.choice import METHODS, make_method
from scoregen.smoothing.dataset import certify_dataset
from scoregen.smoothing.export import export
from scoregen.smoothing.results import load
from scoregen.smoothing.verify import problems, verify

DATA = [(torch.tensor([0.1 * k + 0.05, 1.0]), k % 3) for k in range(6)]


def classifier(y):
    return torch.stack((y[:, 0], 0.6 - y[:, 0], 0.2 + 0 * y[:, 0]), 1)


@pytest.fixture
def folder(tmp_path):
    certified(tmp_path, "ladder")
    return tmp_path


def certified(folder, method, noise=None, data=DATA):
    noise = noise or Gaussian(0.4)
    g = SmoothedClassifier(classifier, noise, 3)
    rule = make_method(method, noise, n=400, n0=30, alpha=0.01)
    return certify_dataset(g, data, range(len(data)), rule, folder, seed=3)


def edited(folder, change, line=2):
    r"""One record is changed by a function of it, which returns the lines in its place."""
    file = folder / "certificates.jsonl"
    lines = file.read_text().splitlines()
    lines[line : line + 1] = change(json.loads(lines[line]))
    file.write_text("".join(f"{text if isinstance(text, str) else json.dumps(text)}\n" for text in lines))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("noise", [Gaussian(0.4), LogNormal(0.4, offset=0.3)], ids=["Gaussian", "LogNormal"])
def test_what_was_certified_follows_from_its_counts(method, noise, tmp_path, capsys):
    certified(tmp_path, method, noise)
    assert problems(tmp_path) == []
    assert verify(tmp_path) == 0
    assert "every certificate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda r: [r | {"radius": r["radius"] + 1e-6}], r"radius is .*, its counts prove"),
        (lambda r: [r | {"predicted": (r["candidate"] + 1) % 3}], r"predicted is .*, its counts prove"),
        (lambda r: [r | {"p_lower": r["p_lower"] + 1e-3}], "p_lower is"),
        (lambda r: [r | {"counts": [r["n"], 0, 0]}], "its counts are no counts of this method"),
        (lambda r: [r | {"n": r["n"] + 1}], "n is"),
        (lambda r: [r | {"path": [[1, 1], *r["path"]]}], "its counts are no counts of this method"),
        (lambda r: [r | {"selection": [9, 0, 0]}], r"the class was chosen by \[9, 0, 0\], n0=30"),
        (lambda r: [r | {"selection": None}], r"the class was chosen by None, n0=30"),
        (lambda r: [r | {"path": [[10**30, 1], *r["path"]]}], "its counts are no counts of this method"),
        (lambda r: [r | {"index": 99}], "input 99 is none of this job"),
        (lambda r: [r, r], r"1 input is more than once: \d"),
        (lambda r: [], r"1 input is missing: \d"),
    ],
    ids=[
        "radius",
        "label",
        "bound",
        "counts",
        "n",
        "path",
        "selection",
        "no selection",
        "huge",
        "foreign",
        "double",
        "missing",
    ],
)
def test_what_was_edited_is_named(folder, change, text, capsys):
    edited(folder, change)
    assert any(re.search(text, line) for line in problems(folder)), problems(folder)
    assert verify(folder) == 1
    assert " in '" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda r: [json.dumps(r | {"radius": float("nan")})], "NaN is no number"),
        (lambda r: [{"format": "scoregen certificates 2"}, r], "line 3 is a second header"),
        (lambda r: [r | {"index": 99}], "input 99 is none of its job"),
        (lambda r: [r, r | {"radius": 0.1}], r"input \d has two records"),
    ],
    ids=["NaN", "a second header", "foreign", "two that differ"],
)
def test_damage_is_refused_when_it_is_read(folder, change, text):
    edited(folder, change)
    with pytest.raises(UserError, match=text):
        load(folder)
    with pytest.raises(UserError, match=text):
        certified(folder, "ladder")


def test_a_header_that_names_a_program_runs_nothing(folder):
    edited(folder, lambda header: [header | {"noise": "__import__('os').system('touch executed')"}], line=0)
    with pytest.raises(UserError, match="which is no noise or method of this package"):
        problems(folder)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ([(x, 2 - label) for x, label in DATA], "labels"),
        ([*DATA[1:], DATA[0]], "labels"),
        ([(x + 0.01, label) for x, label in DATA], "inputs"),
    ],
    ids=["flipped labels", "another order", "other inputs"],
)
def test_a_folder_refuses_other_data(folder, data, key):
    with pytest.raises(UserError, match=f"of another job: {key} was"):
        certified(folder, "ladder", data=data)


def test_every_label_and_the_precision_are_part_of_the_job(tmp_path):
    many = [(torch.tensor([0.05 * k, 1.0]), k % 3) for k in range(15)]
    certified(tmp_path, "ladder", data=many)
    with pytest.raises(UserError, match="of another job: labels was"):
        certified(tmp_path, "ladder", data=[*many[:-1], (many[-1][0], 0)])
    g = SmoothedClassifier(classifier, Gaussian(0.4), 3, precision=torch.bfloat16)
    rule = make_method("ladder", g.noise, n=400, n0=30, alpha=0.01)
    with pytest.raises(UserError, match=r"of another job: precision was .None., now .torch\.bfloat16"):
        certify_dataset(g, many, range(15), rule, tmp_path, seed=3)


def test_tables_hold_every_input_with_its_recorded_radius(folder):
    pandas = pytest.importorskip("pandas")
    run = load(folder)
    table = pandas.read_csv(export(run, folder, "csv"))
    assert table.radius.tolist() == [r["radius"] for r in run.records]
    assert table.correct.tolist() == [r["predicted"] == r["label"] for r in run.records]
    assert table.alpha.unique().tolist() == [0.01]
    with export(run, folder, "cohen").open() as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[0] == ["idx", "label", "predict", "radius", "correct", "time"]
    assert [float(row[3]) for row in rows[1:]] == [r["radius"] for r in run.records]


@pytest.mark.parametrize(
    ("change", "line", "text"),
    [
        (lambda r: [r | {"label": (r["label"] + 1) % 3}], 2, "labels: they are not those that were certified"),
        (lambda h: [h | {"reach": 2 * h["reach"]}], 0, "header: reach is .*, its noise and method say"),
        (lambda h: [h | {"radii": h["radii"][:-1]}], 0, "header: radii is"),
        (lambda h: [h | {"norm": "l1"}], 0, "header: norm is l1, its noise and method say l2"),
        (lambda h: [{key: value for key, value in h.items() if key != "labels"}], 0, "labels: they are not those"),
    ],
    ids=["label", "reach", "radii", "norm", "no hash of labels"],
)
def test_labels_and_the_radii_of_the_header_are_verified(folder, change, line, text):
    edited(folder, change, line)
    assert any(re.search(text, found) for found in problems(folder)), problems(folder)


def test_an_input_that_was_taken_out_of_the_job_is_noticed(folder):
    gone = json.loads((folder / "certificates.jsonl").read_text().splitlines()[2])["index"]
    edited(folder, lambda record: [])
    edited(folder, lambda header: [header | {"indices": [i for i in header["indices"] if i != gone]}], line=0)
    assert problems(folder) == ["labels: they are not those that were certified, or inputs were left out of the header"]


@pytest.mark.parametrize(
    "change",
    [
        lambda h: [h | {"indices": [0, 0, 1]}],
        lambda h: [h | {"indices": "all"}],
        lambda h: [{key: value for key, value in h.items() if key != "num_classes"}],
        lambda h: [h | {"noise": "Gaussian(width=1.0)"}],
        lambda h: [h | {"parts": 3}],
    ],
    ids=["double indices", "no indices", "no classes", "an argument that is none", "parts"],
)
def test_a_damaged_header_is_a_message(folder, change):
    edited(folder, change, line=0)
    with pytest.raises(UserError, match="damaged"):
        problems(folder)


@pytest.mark.parametrize(
    "other",
    [[(x, 2 - label) for x, label in DATA], [(x + 0.01, label) for x, label in DATA]],
    ids=["labels", "inputs"],
)
def test_runs_of_other_data_are_not_compared(tmp_path, other):
    runs = {
        tmp_path / name: certified(tmp_path / name, "fixed", data=data)
        for name, data in zip("ab", (DATA, other), strict=True)
    }
    with pytest.raises(UserError, match="must be of the same data, got other"):
        _check_comparable(runs)
    _check_comparable({path: runs[tmp_path / "a"] for path in runs})
