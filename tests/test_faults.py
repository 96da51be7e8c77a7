r"""A small part of `make faults`; random overrides, each of which can be run or ends in one message."""

import contextlib
import io
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny import ROOT, TOY, command, compose


def test_killed_doubled_and_filled_jobs_end_as_undisturbed_ones():
    rows = ["kill train in a checkpoint", "start train twice, together", "limit of file size"]
    argv = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--times", "1", "--rows", *rows]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" 1 of 1 | 0 |") == 3


def keys(node: Any, where: str = "") -> list[str]:
    r"""The keys of a configuration, nodes and leaves."""
    if not isinstance(node, dict):
        return [where]
    below = [found for key, inner in node.items() for found in keys(inner, f"{where}.{key}".strip("."))]
    return [where, *below] if where else below


KEYS = sorted(set(keys(compose(*TOY))) - {"dry_run", "data.n"})
words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8)
numbers = st.one_of(st.integers(-3, 300), st.just(10**30), st.floats())
leaves = st.one_of(st.none(), st.booleans(), numbers, words)
values = st.one_of(leaves, st.lists(leaves, max_size=3), st.dictionaries(st.sampled_from(["a", "_target_"]), leaves))


def as_override(value: Any) -> str:
    r"""A value as Hydra's grammar reads it, quoted where it is a text."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_override(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_override, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value).replace("None", "null")


def outcome(*overrides: str) -> tuple[int, str]:
    r"""Exit status and errors of a training that only looks."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = command("train", *TOY, "trainer.steps=2", *overrides, "dry_run=true")
    return status, errors.getvalue()


@pytest.fixture(autouse=True)
def here(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=2))
@example({"trainer.batch_size": 10**30})
@example({"model": None})
@example({"sde": 3})
def test_a_random_override_ends_in_a_dry_run_or_in_one_message(chosen):
    status, errors = outcome(*(f"{key}={as_override(value)}" for key, value in chosen.items()))
    assert (status, errors.count("\n")) in ((0, 0), (1, 1)), errors


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=20))
@example("a=b=c")
@example("x=[")
@example("--")
@example("+")
@example("~")
@example("=")
def test_a_random_argument_ends_in_one_message(argument):
    status, errors = outcome(argument)
    assert (status, errors.count("\n")) in ((0, 0), (1, 1)), errors
