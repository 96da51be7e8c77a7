r"""The messages that docs/troubleshooting.md quotes are those of the source: texts of it, and values between them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = [" ".join(block.split()) for block in re.findall(r"```text\n(.*?)```", PAGE, re.S)]
NAMES = ("changed", "classifier", "mnist", "digits", "Net", "Denoiser", "DenoisingScoreMatching")  # values of a message
QUOTED = {  # messages of Python and torch that stand in ours
    "No module named",
    "takes 3 positional arguments but 4 were given",
    "mat1 and mat2 must have the same dtype, but got Float and BFloat16",
}


@cache
def texts() -> frozenset[str]:
    r"""The texts of the package with more than one word, or that stand between the values of a message."""
    trees = [ast.walk(ast.parse(path.read_text())) for path in (ROOT / "scoregen").rglob("*.py")]
    found = set()
    for node in (node for tree in trees for node in tree):
        if isinstance(node, ast.JoinedStr):
            found |= {part.value for part in node.values if isinstance(part, ast.Constant)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            found.add(node.value)
    return frozenset(text for text in found if len(text) > 1 and "\n" not in text)  # a docstring has several lines


def foreign(message: str) -> list[str]:
    r"""The words of a message that no text of the package has, and that are no values.

    A value has a digit, is a key with a dot, or stands in quotes or brackets.
    """
    known = [False] * len(message)
    for found in re.finditer(r"'[^']*'|\([^)]*\)|\[[^\]]*\]|\w+(?:\.\w+)+", message):
        known[found.start() : found.end()] = [True] * len(found.group())
    for text in texts() | QUOTED:
        at = message.find(text)
        while at >= 0:
            known[at : at + len(text)] = [True] * len(text)
            at = message.find(text, at + 1)
    left = "".join(" " if is_known else char for char, is_known in zip(message, known, strict=True))
    return [word for word in re.findall(r"\S*[^\W\d_]{2}\S*", left) if not re.search(r"\d", word) and word not in NAMES]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message[:40])
def test_quoted_messages_are_those_of_the_source(message):
    assert not foreign(message)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Set trainer.steps above", "Please raise it over"),
        ("has already done", "already did"),
        ("holds another", "has a"),
    ],
)
def test_another_wording_would_be_found(right, wrong):
    message = next(message for message in MESSAGES if right in message)
    assert foreign(message.replace(right, wrong))


def test_the_page_quotes_messages():
    assert len(MESSAGES) > 20
