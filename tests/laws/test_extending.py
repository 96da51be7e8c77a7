r"""docs/extending.md as it stands: its classes run from a folder of one's own, and in the package pass their laws.

The package is extended in memory: the files of the page lie in a folder that is added to the path of their package.
"""

import importlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from laws import test_networks, test_noises, test_processes, test_samplers, test_sources, test_weightings
from laws.discovery import package_of, read, unconfigured, unexported, unlisted
from tiny import COMMON, DIGITS, command, numbers, train

from scoregen.config import build

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"^`([\w/.]+)`(?:, in (?:`(\w+)`|your own folder))?\n\n```\w+\n(.*?)```", re.M | re.S)
BLOCKS = [(Path(path), table, text) for path, table, text in BLOCK.findall(PAGE)]
FILES = {path.stem: (path, text) for path, table, text in BLOCKS if path.suffix == ".py" and not table}
CONF = {path: text for path, _, text in BLOCKS if path.parts[0] == "conf"}
ROWS = {table: text for _, table, text in BLOCKS if table}
COMMANDS = [shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


class Kind(NamedTuple):
    r"""A kind of the page: its module, the module of its law, the table there, and the law of a row."""

    module: str
    tests: ModuleType
    table: str
    law: Callable[[Any], None]


def weigh(row: tuple[Any, Any]) -> None:
    for s in (0.01, 0.5, 20.0):
        test_weightings.check_claim(*row, s)
        test_weightings.check_minimum(*row, s)


def move(row: tuple[Any, Any]) -> None:
    test_processes.check_moments(*row)
    test_processes.check_inverse(row[0])


def certify(line: test_noises.Line) -> None:
    test_noises.check_radius(line)
    test_noises.check_runner_up(line)
    test_noises.check_draws(line)


KINDS = [
    Kind("midpoint", test_samplers, "ORDERS", test_samplers.check_order),
    Kind("quadratic_vp", test_processes, "EQUATIONS", move),
    Kind("min_snr", test_weightings, "WEIGHTS", weigh),
    Kind("logistic", test_noises, "NOISES", certify),
    Kind("rings", test_sources, "SOURCES", lambda small: None),  # its law needs the class and a folder
    Kind("perceptron", test_networks, "NETWORKS", test_networks.check_network),
]
GROUPS = {"sampler", "sde", "noise", "data"}  # the others stand inside nodes


@pytest.fixture
def package(tmp_path, monkeypatch):
    r"""Puts a module of the page into its package; gives its class."""

    def add(module: str) -> type:
        path, text = FILES[module]
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
        parent = importlib.import_module(".".join(path.parent.parts))
        monkeypatch.setattr(parent, "__path__", [*parent.__path__, str((tmp_path / path).parent)])
        monkeypatch.setattr(parent, module, None, raising=False)  # importing sets it, the end takes it back
        name = f"{parent.__name__}.{module}"
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
        kinds = vars(importlib.import_module(name)).values()
        return next(kind for kind in kinds if getattr(kind, "__module__", None) == name)

    return add


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.module)
def test_each_step_that_is_missing_is_named(package, kind, tmp_path, monkeypatch):
    r"""Export, file of conf/, line of the table: each is told by name until it is there; then the law holds."""
    found = package(kind.module)
    name, parent = found.__name__, sys.modules[package_of(found)]
    told = [unexported(found)]
    monkeypatch.setattr(parent, name, found, raising=False)
    monkeypatch.setattr(parent, "__all__", [*parent.__all__, name])

    (file,) = (path for path in CONF if path.stem == kind.module)
    group = file.parts[1] if file.parts[1] in GROUPS else None
    told += [unconfigured(found, group, tmp_path / "conf")]
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(CONF[file])

    table = dict(getattr(kind.tests, kind.table))
    told += kind.tests.missing(table)
    ((key, row),) = eval("{" + ROWS[kind.table] + "}", {**vars(kind.tests), name: found}).items()
    table[key] = row

    assert [text.partition(":")[0] for text in told] == [name] * 3
    if kind.module == "midpoint":
        assert all(f"    {text}\n" in PAGE for text in told)
    assert unexported(found) is None and unconfigured(found, group, tmp_path / "conf") is None
    assert not kind.tests.missing(table)
    kind.law(row)
    if group == "data":
        test_sources.check_source(found, row, tmp_path)
    if group is not None:
        assert type(build(read(tmp_path / file))) is found
        assert unlisted(found, group, read(tmp_path / file)) is None


SMALL = {
    "train": ["trainer.steps=2", "trainer.checkpoint_every=2", *COMMON, "hydra.run.dir=run"],
    "sample": ["n=2", "out=run"],
    "certify": ["n=20", "n0=10", "method=fixed", "max_inputs=2", "out=run"],
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    r"""A folder of one's own with all modules of the page and two runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, (_, text) in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    train(tmp_path / "outputs" / "demo", *DIGITS, "trainer.steps=1")
    classifier = ["data=digits", "model=classifier", "loss=cross_entropy", *COMMON]
    train(tmp_path / "outputs" / "classifier", *classifier, "trainer.steps=1")
    return tmp_path


def test_the_commands_of_the_page_run_from_a_folder_of_ones_own(own, capfd):
    assert {line[3] for line in COMMANDS} == {"train", "sample", "certify"}
    for count, line in enumerate(COMMANDS):
        out = next((text.partition("=")[2] for text in line if text.startswith("hydra.run.dir=")), f"run{count}")
        small = [text.replace("=run", f"={out}") for text in SMALL[line[3]]]
        if line[3] == "train" and not any("data=" in text for text in line):
            small += DIGITS[1:3]
        assert command(line[3], *line[4:], *small) == 0, capfd.readouterr().err
        assert any((own / out).iterdir())
    assert sum("weight_norm" in step for step in numbers(own / out)) == 1
