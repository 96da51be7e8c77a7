r"""The lengths of paragraphs and sentences of README, CHANGELOG and docs, and of the docstrings on the reference pages.

    python docs/english.py         # a line for each page; status 1 if one breaks a rule

A paragraph has at most 80 words; an entry of a list counts as one. Of ten sentences of a page nine have at most 30
words. Code, tables and headings do not count.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = sorted(p for p in (ROOT / "docs" / "reference").glob("*.md") if p.name != "configuration.md")
PARAGRAPH, SENTENCE = 80, 30


def paragraphs(text: str) -> list[str]:
    r"""Running text, one string a paragraph or entry of a list."""
    text = re.sub(r"<!--.*?-->", "", re.sub(r"(?ms)^```.*?^```", "\n", text), flags=re.S)
    text = re.sub(r"(?m)^(\s*[-*] |\s*\d+\. )", r"\n\1", text)
    found = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if not re.match(r"\s*(\||#|!\[|:::|\$\$)|^ {4}(?![-*])", line)]
        if any(line.strip() for line in lines):
            found.append(" ".join(" ".join(lines).split()))
    return found


def sentences(paragraph: str) -> list[str]:
    r"""Sentences; a colon or semicolon that ends a clause does not end one."""
    plain = re.sub(r"`[^`]*`", "code", re.sub(r"\]\([^)]*\)", "]", paragraph))
    return [part for part in re.split(r"(?<=[.!?])[\])*]*\s+(?=[A-Z`\[*(])", plain) if part]


def words(text: str) -> int:
    r"""What is read: code counts as one word."""
    return len(re.findall(r"\S*\w\S*", re.sub(r"`[^`]*`", "code", re.sub(r"\]\([^)]*\)", "]", text))))


def ninetieth(lengths: list[int]) -> int:
    r"""The 90th percentile: nine of ten are at most this long."""
    return sorted(lengths)[max(0, -(-9 * len(lengths) // 10) - 1)] if lengths else 0


def faults(page: Path) -> list[str]:
    r"""What breaks a rule on a page."""
    name, (_, tenth) = page.relative_to(ROOT), lengths(page)
    long = [p for p in paragraphs(page.read_text()) if words(p) > PARAGRAPH]
    found = [f"{name}: a paragraph of {words(p)} words: {p[:70]}..." for p in long]
    if tenth > SENTENCE:
        found.append(f"{name}: one sentence in ten is longer than {tenth - 1} words; {SENTENCE} is the limit.")
    return found


def lengths(page: Path) -> tuple[int, int]:
    r"""Words of the longest paragraph of a page, and of the sentence that is longer than nine of ten."""
    found = paragraphs(page.read_text())
    return max(map(words, found), default=0), ninetieth([words(s) for p in found for s in sentences(p)])


def main() -> int:
    r"""Prints a line for each page, then the faults."""
    for page in PAGES + REFERENCE:
        longest, tenth = lengths(page)
        print(f"{page.relative_to(ROOT)!s:36} longest paragraph {longest:4}, nine of ten sentences {tenth:3}")
    found = [fault for page in PAGES + REFERENCE for fault in faults(page)]
    print("\n".join(found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
