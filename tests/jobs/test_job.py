r"""Jobs: one description for Python, the command line, the help and the record."""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from tiny import DIGITS, command, compose, job, train
from torch import nn
from ways import both_ways

import scoregen
from scoregen import jobs
from scoregen.config import Node, build, conf_dir
from scoregen.data import Digits
from scoregen.description import option, plain
from scoregen.errors import UserError
from scoregen.help import JOBS, help_of
from scoregen.jobs import Job, Plan
from scoregen.metrics import Pixels
from scoregen.samplers import Heun, Karras

CLASSES = {
    cls.name(): cls for cls in vars(jobs).values() if isinstance(cls, type) and issubclass(cls, Job) and cls is not Job
}


def test_every_job_has_a_root_and_a_line_of_help():
    assert set(CLASSES) == set(JOBS)
    assert {*scoregen.__all__} == {*(kind.__name__ for kind in CLASSES.values()), "TableModel", "load", "__version__"}
    assert {path.stem for path in conf_dir().glob("*.yaml")} == set(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_fields_are_the_keys_of_the_root_and_of_the_help(name):
    config = compose(name=name)
    names = {part.name for part in fields(CLASSES[name])}
    keys = config.keys() - {"out", "_target_"}
    assert config["_target_"] == f"scoregen.jobs.{CLASSES[name].__name__}"
    assert names == keys
    text = help_of(name)
    for key in keys:
        assert f"\n  {key}" in text
    assert sum(line.startswith("  ") and name in line for line in text.splitlines()[:6]) >= 2  # examples


@pytest.mark.parametrize("name", JOBS)
def test_defaults_in_python_are_those_of_the_root(name):
    required = {
        "data": {"_target_": "scoregen.data.Digits"},
        "runs": ["a", "b"],
        "images": "x",
        "looks": 1.0,
        "table": "t.csv",
        "between": [0, 1],
        "selector": "s",
        "experts": ["a", "b"],
        "sigmas": [0.1, 0.2],
    }
    required |= {"checkpoint": "x"} if name in ("evaluate", "certify", "predict", "demo") else {}
    given = {part.name: required[part.name] for part in fields(CLASSES[name]) if part.name in required}
    config = compose(name=name)
    config.pop("out", None)
    by_root = build(config | given)
    by_python = CLASSES[name](**{key: build(value) if key == "data" else value for key, value in given.items()})
    for part in fields(CLASSES[name]):
        if part.name != "checkpoint" or name != "train":
            assert by_root.described(part.name) == by_python.described(part.name), part.name


def test_annotations_are_the_checks_in_python_too():
    with pytest.raises(UserError, match="weights: must be a text, got 3"):
        scoregen.Sample(weights=3)
    with pytest.raises(UserError, match="sampler: must be Sampler, got"):
        scoregen.Sample(sampler=Karras())
    with pytest.raises(ValueError, match="n must be >= 1, got n=0"):
        scoregen.Sample(n=0)
    with pytest.raises(UserError, match="data: must be Source, got"):
        scoregen.Evaluate(data=5, samples="x")
    with pytest.raises(UserError, match="trainer: must be a mapping with a _target_, got 5"):
        scoregen.Train(data=Digits(), trainer=5)
    with pytest.raises(UserError, match=r"objective: quality needs quality\.every="):
        scoregen.Train(data=Digits(), objective="quality")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "digits", *DIGITS, "trainer.steps=2")
    train(folder / "log", *DIGITS, "trainer.steps=2", "conditional=false", "sde=multiplicative", "sde.offset=0.02")
    small = ["data=digits", "model=classifier", "model.channels=[4]", "model.blocks=[1]", "loss=cross_entropy"]
    train(folder / "classifier", *small, *DIGITS[3:], "trainer.steps=1")
    x = np.random.default_rng(0).uniform(0.2, 0.6, (2, 8, 8)).astype(np.float32)
    np.savez(folder / "speckled.npz", images=x)
    for k in "ab":
        job(
            "certify",
            "data=digits",
            f"checkpoint={folder}/classifier",
            "n=200",
            f"seed={'ab'.index(k)}",
            "max_inputs=2",
        ).run(folder / k)
    for k, name in enumerate(("small", "large")):
        certify = ["data=digits", f"checkpoint={folder}/classifier", "n=200", "max_inputs=2", f"noise.sigma={0.1 + k}"]
        right_for(job("certify", *certify).run(folder / name) / "certificates.jsonl", k)
    return folder


@pytest.fixture(scope="module")
def with_table(runs):
    r"""The same folder, with a model of a table in it."""
    pytest.importorskip("pandas")
    (runs / "rows.csv").write_text(
        "a,b\n" + "".join(f"{k / 7:.2f},{'' if k % 5 == 0 else 'xy'[k % 2]}\n" for k in range(40))
    )
    table = ["data=table", f"data.path={runs}/rows.csv", "model.network.width=8", "model.network.depth=1"]
    train(runs / "table", *table, *DIGITS[3:], "trainer.steps=1")
    return runs


def right_for(file: Path, row: int) -> None:
    r"""Edits certificates so that one of them has the right label, and no other."""
    header, *records = [json.loads(line) for line in file.read_text().splitlines()]
    for k, record in enumerate(sorted(records, key=lambda record: record["index"])):
        record["predicted"] = record["label"] if k == row else -1
    file.write_text("".join(json.dumps(line) + "\n" for line in (header, *records)))


@pytest.mark.parametrize("name", [name for name in JOBS if name != "demo"])  # it serves, and writes nothing
def test_python_and_the_command_line_write_the_same_bytes(name, runs, tmp_path, monkeypatch, capsys, request):
    if name == "impute":
        request.getfixturevalue("with_table")
    monkeypatch.chdir(tmp_path)
    argv, in_python = both_ways(runs)[name]
    place = "hydra.run.dir" if name == "train" else "out"
    assert command(name, *argv, f"{place}={tmp_path}/here") == 0, capsys.readouterr().err
    (tmp_path / "here").rename(tmp_path / "line")
    in_python.run(tmp_path / "here")
    found, expected = (contents(tmp_path / folder) for folder in ("here", "line"))
    assert found.keys() == expected.keys() and len(found) >= 2
    for path in found:
        if path.name not in (
            "metrics.jsonl",
            "config.yaml",
        ):  # with times; with a preview that is switched off otherwise
            assert found[path] == expected[path], path


def contents(folder: Path) -> dict[Path, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_each_run_keeps_what_hydra_would(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("sample", f"checkpoint={runs}/digits", "n=1", "sampler.steps=1", "out=s") == 0
    kept = {path.name: path.read_text() for path in (tmp_path / "s" / ".hydra").iterdir()}
    assert kept.keys() == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert "- sampler.steps=1" in kept["overrides.yaml"] and "steps: 1" in kept["config.yaml"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]
    assert command("sample", f"checkpoint={runs}/digits", "n=1", "sampler.steps=2", "out=s") == 1
    assert {path.name: path.read_text() for path in (tmp_path / "s" / ".hydra").iterdir()} == kept


@dataclass(frozen=True, kw_only=True)
class Adds(Job):
    r"""A job of a user's own."""

    known: ClassVar = ("sum.txt",)
    a: float
    kind: Literal["plain", "fails"] = "plain"

    def plan(self, out: Path) -> Plan:
        def work() -> None:
            if self.kind == "fails":
                raise UserError("kind: fails.")
            (out / "sum.txt").write_text(str(self.a + 1))

        return Plan(work, ["adding"])

    def result(self, out: Path) -> float:
        return float((out / "sum.txt").read_text())


def test_a_record_holds_infinity_as_json_can(tmp_path):
    Adds(a=math.inf).run(tmp_path)
    assert json.loads((tmp_path / "job.json").read_text()) == {"job": "adds", "a": "inf", "kind": "plain"}
    Adds(a=math.inf).run(tmp_path)
    with pytest.raises(UserError, match=r"holds other results: a was 'inf', now 2\.0"):
        Adds(a=2).run(tmp_path)


def test_a_job_that_fails_before_its_first_result_gives_the_folder_back(tmp_path):
    with pytest.raises(UserError, match="kind: fails"):
        Adds(a=1, kind="fails").run(tmp_path)
    assert Adds(a=1).run(tmp_path) == tmp_path
    assert Adds(a=1).result(tmp_path) == 2.0


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    Adds(a=1, dry_run=True).run(tmp_path / "out")
    assert not (tmp_path / "out").exists() and capsys.readouterr().out == "adding\n"


def test_a_moved_checkpoint_is_the_same_and_another_at_its_place_is_not(runs, tmp_path):
    import shutil

    shutil.copytree(runs / "digits", tmp_path / "a", symlinks=True)
    sampled = {"n": 1, "sampler": Heun(1)}
    scoregen.Sample(checkpoint=str(tmp_path / "a"), **sampled).run(tmp_path / "out")
    (tmp_path / "a").rename(tmp_path / "b")
    scoregen.Sample(checkpoint=str(tmp_path / "b"), **sampled).run(tmp_path / "out")
    train(tmp_path / "c", *DIGITS, "trainer.steps=1")
    with pytest.raises(UserError, match="weights_sha256 was"):
        scoregen.Sample(checkpoint=str(tmp_path / "c"), **sampled).run(tmp_path / "out")


GROUPS = ("chart", "data", "features", "logger", "loss", "metrics", "model", "noise", "sampler", "sde", "trainer")
REQUIRED = {"path", "checkpoint", "pipeline"}  # need files
OPEN = {"channels": 1, "shape": [1, 16, 16], "num_classes": 3, "step": 1.0, "low": 0.0, "high": 9.0}  # by the data


def options() -> list[tuple[str, str]]:
    return [(path.parent.name, path.stem) for group in GROUPS for path in sorted((conf_dir() / group).glob("*.yaml"))]


def filled(node):
    if not isinstance(node, dict):
        return node
    return {key: OPEN[key] if key in OPEN and value is None else filled(value) for key, value in node.items()}


@pytest.mark.parametrize(("group", "name"), options(), ids=lambda part: part)
def test_every_option_is_described_by_what_it_builds(group, name):
    r"""build, then plain, then build again: the description of an object builds its equal."""
    node = filled(option(group, name)) | ({"steps": 9} if group == "trainer" else {})
    text = json.dumps(node)
    if "???" in text or name in ("auto", "inception"):
        pytest.skip("needs files, or is not a class")
    if group == "model":
        node = node.get("network", node)  # a denoiser is built with its process
        node |= {"shape": [3]} if name in ("mlp", "table") else {}
    described = plain(build(node))
    assert plain(build(described)) == described
    numbers = {key: value for key, value in node.items() if isinstance(value, int | float)}
    assert {key: described[key] for key in numbers} == numbers


def test_what_cannot_be_described_says_so():
    class Forgetful:
        def __init__(self, size: int) -> None:
            pass

    with pytest.raises(UserError, match="sampler: a Forgetful does not keep its argument 'size' as an attribute"):
        plain(Forgetful(3), "sampler")


def test_large_contents_are_described_by_a_digest():
    found = plain({"x": torch.zeros(2, 3), "y": np.zeros(2)})
    assert found["x"]["shape"] == [2, 3] and len(found["x"]["sha256"]) == 64
    assert found["y"]["dtype"] == "float64"


def test_names_are_those_of_the_package_that_exports_them():
    assert plain(Heun(3))["_target_"] == "scoregen.samplers.Heun"
    assert plain(nn.SiLU) == "torch.nn.SiLU"
    assert plain({"f": torch.optim.AdamW}) == {"f": "torch.optim.AdamW"}


def test_a_class_with_arguments_to_come_is_a_node():
    from functools import partial

    from scoregen.monitors import Quality

    found = scoregen.Train(data=Digits(), quality=partial(Quality, every=5, features=Pixels()))
    assert found.quality == {"_target_": "scoregen.monitors.Quality", "every": 5, "features": plain(Pixels())}
    assert isinstance(found.quality, Node)


def test_a_classifier_given_from_python_is_certified_and_told_from_others(tmp_path):
    torch.manual_seed(0)
    first, other = (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval() for _ in range(2))
    options = {"data": Digits(), "n": 200, "max_inputs": 2}
    scoregen.Certify(classifier=first, **options).run(tmp_path)
    scoregen.Certify(classifier=first, **options).run(tmp_path)
    with pytest.raises(UserError, match="holds other results: classifier was"):
        scoregen.Certify(classifier=other, **options).run(tmp_path)
