r"""What README and docs tell a user to type works, and what they point to exists."""

import re
import shlex
from pathlib import Path

import pytest
from tiny import DIGITS, compose, train

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = {"train.py": "train", "sample.py": "sample", "scoregen.metrics": "evaluate", "scoregen.smoothing": "certify"}
COMMAND = re.compile(
    r"^ {4}(?:\S+=\S+ )*(?:torchrun .*? |python )(?:-m )?(train\.py|sample\.py|scoregen\.\w+) (.+)$", re.M
)


def commands() -> list[tuple[str, str]]:
    r"""(program, arguments) of the indented command lines."""
    return [(program, rest.split("  #")[0].strip()) for program, rest in COMMAND.findall(README)]


def test_the_readme_shows_commands_of_every_program_it_names():
    assert {program for program, _ in commands()} >= {"train.py", "sample.py", "scoregen.metrics"}


@pytest.mark.parametrize(("program", "arguments"), commands(), ids=lambda value: value[:60])
def test_commands_of_the_readme_compose(program, arguments):
    overrides = [part for part in shlex.split(arguments) if not part.startswith(("--", "hydra."))]
    assert compose(*overrides, name=CONFIGS[program])


def test_the_library_example_runs_and_gives_the_shapes_it_states(tmp_path, monkeypatch):
    train(tmp_path / "outputs" / "demo", *DIGITS, "trainer.steps=1")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["x"].shape == (10, 1, 8, 8)
    first = re.search(r"shape=\((\d+), 1, 8, 8\), generator=g\)\s+# \((.*?)\)", code)
    assert first.group(2) == f"{first.group(1)}, 1, 8, 8"


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"^ {4}make (\w+)", README, re.M)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist_and_pictures_are_small(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        target = page.parent / link
        assert target.exists(), link
        assert target.suffix != ".png" or target.stat().st_size < 300_000
