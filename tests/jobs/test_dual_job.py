r"""Dual smoothing by its commands: targets from certificates, a selector, certificates, verification."""

import json
import re

import numpy as np
import pytest
import torch
from tiny import job
from torch import nn
from torch.nn import functional

from scoregen.data import Npz
from scoregen.errors import UserError
from scoregen.smoothing import best_sigma
from scoregen.smoothing.export import COLUMNS
from scoregen.smoothing.results import load
from scoregen.smoothing.verify import problems

SIGMAS = (0.1, 0.4)
HELD = ["data=digits", "data.test=300"]


class Means(nn.Module):
    r"""The nearest mean of the classes, blurred or not."""

    def __init__(self, blurred):
        super().__init__()
        self.blurred = blurred
        train = job("certify", *HELD, classifier="x:y").data.train
        x, labels = self.seen(train.in_units(slice(None))[0]), train.label
        self.register_buffer("means", torch.stack([x[labels == k].mean(0) for k in range(10)]))

    def seen(self, x):
        return (functional.avg_pool2d(x, 3, 1, 1) if self.blurred else x).flatten(1)

    def forward(self, x):
        return -torch.cdist(self.seen(x), self.means).square()


class Chooser(nn.Module):
    r"""Expert 1 where the mean of the blurred image is clear."""

    def __init__(self):
        super().__init__()
        self.means = Means(True)

    def forward(self, x):
        first, second = self.means(x).topk(2).values.T
        return torch.stack((torch.full_like(first, 0.35), first - second), 1)


@pytest.fixture(scope="module")
def networks():
    return {"A": Means(False).eval(), "B": Means(True).eval(), "S": Chooser().eval()}


@pytest.fixture(autouse=True)
def loaded(networks, monkeypatch):
    r"""Checkpoints are letters here; they are read as elsewhere."""
    letters(monkeypatch, networks)


def letters(patch, networks):
    patch.setattr("scoregen.jobs.dual.trained", lambda job, path, weights: networks[path])
    patch.setattr("scoregen.jobs.dual.check_units", lambda path, data: None)
    patch.setattr("scoregen.jobs.dual.names_of", lambda path: [])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, networks):
    r"""Certificates of both experts, of images held out of what they know."""
    folder = tmp_path_factory.mktemp("held")
    for path, sigma in zip("AB", SIGMAS, strict=True):
        certify = [*HELD, f"noise.sigma={sigma}", "n=150", "n0=20", "max_inputs=60"]
        job("certify", *certify, classifier=networks[path]).run(folder / path)
    return [str(folder / path) for path in "AB"]


def dual(out, *overrides, **nodes):
    given = {"selector": "S", "experts": ["A", "B"], "sigmas": list(SIGMAS)} | nodes
    common = ["data=digits", "noise.sigma=0.4", "n=200", "n0=20", "alpha=0.01", "max_inputs=40"]
    return job("dual", *common, *overrides, **given).run(out)


def test_targets_are_the_images_of_the_runs_with_the_best_expert(runs, tmp_path):
    job("targets", *HELD, runs=runs, rule="radius").run(tmp_path)
    best = best_sigma(runs, "radius")
    data, source = Npz(str(tmp_path / "targets.npz"), test="none"), job("certify", *HELD, classifier="x:y").data
    assert data.train.label.tolist() == list(best.values())
    assert (data.train.x == source.test[list(best)][0]).all()
    assert set(best.values()) == {0, 1}
    with pytest.raises(UserError, match=r"data: 180 test images, held out of 1,797 of digits are not those that"):
        job("targets", "data=digits", runs=runs).run(tmp_path / "other")
    with pytest.raises(UserError, match=r"rule: must be right or radius, got 'best'"):
        job("targets", *HELD, runs=runs, rule="best")


def test_a_run_goes_on_where_it_stopped_and_follows_from_its_counts(networks, tmp_path, capsys):
    dual(tmp_path, "export=csv")
    file = tmp_path / "certificates.jsonl"
    whole = file.read_text()
    run = load(tmp_path)
    assert problems(tmp_path) == []
    assert list(run.header["parts"]) == ["selector", "expert 0", "expert 1"]
    assert {part["alpha"] for part in run.header["parts"].values()} == {0.005}
    assert run.header["radii"][:14] == pytest.approx(np.arange(14) * 0.05)  # half of the smallest sigma
    assert run.header["reach"] == run.header["radii"][-1] > 0.65  # what 200 draws of the selector can prove
    chosen = {record["selector"]["predicted"] for record in run.records}
    assert {0, 1} <= chosen
    certified = [r for r in run.records if r["predicted"] != -1]
    assert len(certified) > 10 and all(r["radius"] <= r["selector"]["radius"] for r in certified)
    printed = capsys.readouterr().out
    assert "expert 1: B, Gaussian(sigma=0.4)" in printed and "| expert 1 chosen, % |" in printed
    page = (tmp_path / "report.html").read_text()
    assert "by Gaussian(sigma=0.1)" in page and "parts.expert 0.classifier" in page
    assert (tmp_path / "certificates.csv").read_text().startswith(",".join(COLUMNS))

    file.write_text("".join(whole.splitlines(keepends=True)[:18]))
    dual(tmp_path)
    assert sorted(file.read_text().splitlines()[1:]) == sorted(whole.splitlines()[1:])
    with pytest.raises(UserError, match=r"holds other results: sigmas was \[0.1, 0.4\], now \[0.1, 0.3\]"):
        dual(tmp_path, sigmas=[0.1, 0.3])

    single = ["data=digits", "max_inputs=40", "noise.sigma=0.1", "n=200"]
    job("certify", *single, classifier=networks["A"]).run(tmp_path / "single")
    capsys.readouterr()
    job("compare", runs=[str(tmp_path / "single"), str(tmp_path)]).run(tmp_path / "both")
    table = capsys.readouterr().out
    assert "Gaussian(sigma=0.4) chooses one of Gaussian(sigma=0.1), Gaussian(sigma=0.4)" in table


def test_the_units_of_images_are_said_where_an_archive_would_be_read_in_others(tmp_path, capsys, networks):
    x = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=x, labels=np.arange(8) % 2)
    data = ["data=npz", f"data.path={tmp_path / 'x.npz'}", "data.range=[0,255]", "data.test=all"]
    for k, sigma in enumerate((0.1, 1.0)):
        certify = [*data, f"noise.sigma={sigma}", "n=50", "n0=10"]
        job("certify", *certify, classifier=Always(k).eval()).run(tmp_path / str(sigma))
    job("targets", *data, runs=[str(tmp_path / name) for name in ("0.1", "1.0")]).run(tmp_path / "targets")
    assert "train the selector with data.range=[0.0, 255.0], the units of x" in capsys.readouterr().out
    with np.load(tmp_path / "targets" / "targets.npz") as found:
        assert (found["train_images"] == x).all() and found["train_labels"].tolist() == [0, 1] * 4


class Always(nn.Module):
    def __init__(self, label):
        super().__init__()
        self.label = label

    def forward(self, x):
        return functional.one_hot(torch.full((len(x),), self.label), 2).float()


@pytest.fixture(scope="module")
def certified(tmp_path_factory, networks):
    with pytest.MonkeyPatch.context() as patch:
        letters(patch, networks)
        return dual(tmp_path_factory.mktemp("certified"))


def swap(record):
    record["selector"]["counts"] = record["selector"]["counts"][::-1]


def widen(record):
    record["selector"]["radius"] *= 2
    record["radius"] = record["selector"]["radius"]


def half(header):
    header["parts"]["selector"]["alpha"] = header["alpha"]


@pytest.mark.parametrize(
    ("line", "change", "message"),
    [
        (5, lambda r: r.update(radius=r["radius"] + 0.01), "radius is .*, its counts prove"),
        (5, swap, "its counts are no counts of this method"),
        (5, widen, "its selector's radius is .*, its counts prove"),
        (5, lambda r: r.pop("selector"), r"no counts of this method \('selector'\)"),
    ],
    ids=["radius", "counts of the selector", "radius of the selector", "no selector"],
)
def test_what_was_edited_is_named(certified, tmp_path, line, change, message):
    lines = [json.loads(text) for text in (certified / "certificates.jsonl").read_text().splitlines()]
    line = next(i for i, r in enumerate(lines) if i >= line and r["predicted"] != -1)
    change(lines[line])
    (tmp_path / "certificates.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    assert any(re.search(message, text) for text in problems(tmp_path))


def test_a_header_that_spends_alpha_twice_is_refused(certified, tmp_path):
    header, *lines = (certified / "certificates.jsonl").read_text().splitlines(keepends=True)
    known = json.loads(header)
    half(known)
    (tmp_path / "certificates.jsonl").write_text(json.dumps(known) + "\n" + "".join(lines))
    with pytest.raises(UserError, match="each at alpha/2"):
        problems(tmp_path)


def test_experts_with_other_orders_of_classes_are_refused(tmp_path, monkeypatch):
    names = {"A": list("0123456789"), "B": list("9876543210")}
    monkeypatch.setattr("scoregen.jobs.dual.names_of", names.get)
    with pytest.raises(UserError, match=r"same classes in the same order, got 0 of 'A' and 9 of 'B' as class 0"):
        dual(tmp_path / "out")
    names["B"] = list("012345678")
    with pytest.raises(UserError, match=r"same classes in the same order, got 10 of 'A' and 9 of 'B' as their number"):
        dual(tmp_path / "out")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"sigmas": [0.4, 0.1]}, r"sigmas: must be two or more, increasing, got \[0.4, 0.1\]"),
        ({"sigmas": [0.1]}, r"sigmas: must be two or more"),
        ({"sigmas": [0.1, 0.2, 0.4]}, r"experts: must be one for each of sigmas=\[0.1, 0.2, 0.4\], got 2"),
        ({"noise": {"_target_": "scoregen.smoothing.Uniform", "width": 0.5}}, "noise: must have a sigma, .* got Unif"),
        ({"n_selector": 5}, r"selector \(n is n_selector\): n must be at least"),
        ({"max_radius": 1.5}, r"selector \(n is n_selector\): n must be at least .* to certify radius 1.5"),
    ],
    ids=["order", "one", "number", "noise", "draws", "radius"],
)
def test_what_does_not_fit_is_refused_before_any_draw(tmp_path, nodes, message):
    with pytest.raises(UserError, match=message):
        dual(tmp_path / "out", **nodes)
    assert not (tmp_path / "out").exists()
