r"""The pages of docs/reference are what docs/generate.py writes today, and docs keep to the lengths of sentences."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def pages():
    pytest.importorskip("griffe")
    return script("generate").pages()


def test_the_reference_is_fresh(pages):
    written = {file.name: file.read_text() for file in (DOCS / "reference").glob("*.md")}
    stale = [name for name in {*pages, *written} if pages.get(name) != written.get(name)]
    assert not stale, "run python docs/generate.py"


def test_every_exported_name_has_an_entry_with_a_text(pages):
    generate = script("generate")
    for package in generate.PACKAGES:
        exported = importlib.import_module(f"scoregen.{package}").__all__
        entries = {part.split("\n")[0]: part for part in pages[f"{package}.md"].split("\n## ")[1:]}
        assert sorted(entries) == sorted(exported)
        parts = {name: text.split("```") for name, text in entries.items()}  # a value needs no more than its value
        bare = [
            name for name, (_, sign, text, *_) in parts.items() if len(text.strip()) < 10 and f"{name} =" not in sign
        ]
        assert not bare, f"scoregen.{package}: without a docstring: {bare}"


def test_every_exported_name_is_in_the_reference_and_nine_of_ten_in_a_guide(capsys):
    assert script("names").main() == 0, capsys.readouterr().out


def test_a_name_counts_where_it_is_code(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Folder in a sentence.\n\n## Heun\n\n`Karras(rho=7)` and\n\n    RK4 in a block\n\n```\nVP\n```\n")
    assert script("names").missing({"Folder", "Heun", "Karras", "RK4", "VP", "EDM"}, [page]) == ["EDM", "Folder"]


@pytest.mark.parametrize(
    ("text", "paragraphs", "longest"),
    [
        (
            "One two. Three `a b c` four!\n\n- five\n- six seven",
            ["One two. Three `a b c` four!", "- five", "- six seven"],
            3,
        ),
        (
            "# Head\n\n| a | b |\n\n    code is none\n\n```\nneither\n```\nwords [link text](x.md) end",
            ["words [link text](x.md) end"],
            4,
        ),
    ],
    ids=["lists", "code"],
)
def test_lengths_are_those_of_what_is_read(text, paragraphs, longest):
    english = script("english")
    found = english.paragraphs(text)
    assert found == paragraphs
    assert max(english.words(s) for p in found for s in english.sentences(p)) == longest


def test_a_long_paragraph_is_a_fault(tmp_path, monkeypatch):
    english = script("english")
    monkeypatch.setattr(english, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("Word " * 80)
    assert english.faults(page) == ["page.md: one sentence in ten is longer than 79 words; 30 is the limit."]
    page.write_text("A word. " * 41)
    assert english.faults(page) == ["page.md: a paragraph of 82 words: " + "A word. " * 8 + "A word..."]
