r"""benchmarks/bench.py: a page of what passed and of what failed."""

import sys
from pathlib import Path

import pytest

from benchmarks import bench


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    r"""Runs it over two scripts, one of which fails; its arguments -> its status."""
    (tmp_path / "good.py").write_text("import sys; print('| a | 1 |', *sys.argv[1:])")
    (tmp_path / "bad.py").write_text("print('too slow'); raise SystemExit(3)")
    monkeypatch.setattr(bench, "HERE", tmp_path)
    monkeypatch.setattr(bench, "commands", lambda data: {"bad": ["bad.py"], "good, twice": ["good.py", "--n", "2"]})

    def run(*arguments: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["bench.py", "--out", str(tmp_path / "out"), *arguments])
        with pytest.raises(SystemExit) as end:
            bench.main()
        return end.value.code

    return run


def test_page_has_what_passed_and_what_failed(start, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert start() == 1
    page = (tmp_path / "out" / "report.md").read_text()
    assert "`python benchmarks/bad.py`: FAILED, status 3" in page
    assert "`python benchmarks/good.py --n 2`: passed" in page and "| a | 1 | --n 2" in page
    assert "torch 2." in page and "cores of" in page
    assert "failed: bad" in capfd.readouterr().out


def test_what_passed_is_not_run_again(start, capfd: pytest.CaptureFixture[str]) -> None:
    start()
    capfd.readouterr()
    start()
    assert "== bad" in (out := capfd.readouterr().out) and "== good" not in out
    start("--only", "good, twice", "--again")
    assert "== good" in capfd.readouterr().out


def test_a_name_that_is_none_is_refused_with_the_names(start, capfd: pytest.CaptureFixture[str]) -> None:
    assert start("--only", "goood") == 2
    assert "there is no benchmark 'goood'. Choose among 'bad', 'good, twice'" in capfd.readouterr().err


def test_every_benchmark_exists() -> None:
    for command in bench.commands("data").values():
        assert (bench.HERE / command[0]).exists()
