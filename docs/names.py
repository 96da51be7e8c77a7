r"""Whether every exported name is in the reference, and nine of ten are in a guide.

    python docs/names.py           # status 1 if not; the names without a guide are listed

A guide is README or a page of docs; the reference and the changelog do not count. Names are read from the `__all__` of
each package, without importing it.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARE = 0.9


def exported() -> set[str]:
    r"""The names in the `__all__` of every package."""
    found: set[str] = set()
    for file in (ROOT / "scoregen").rglob("__init__.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found |= set(ast.literal_eval(node.value))
    return {name for name in found if not name.startswith("__")}


def missing(names: set[str], pages: list[Path]) -> list[str]:
    r"""The names that are a word in the code of none of the pages; `Folder` in a sentence is no name."""
    text = "\n".join(page.read_text() for page in pages)
    code = re.findall(r"```.*?```|`[^`\n]+`|^(?:## | {4})[^\n]+", text, re.S | re.M)
    words = {word for part in code for word in re.findall(r"\w+", part)}
    return sorted(names - words)


def main() -> int:
    r"""Prints the counts, then what is missing."""
    names, docs = exported(), ROOT / "docs"
    guides = [ROOT / "README.md", *(page for page in docs.glob("*.md") if page.name != "changelog.md")]
    unseen = missing(names, sorted((docs / "reference").glob("*.md")))
    untold = missing(names, guides)
    share = 1 - len(untold) / len(names)
    print(f"{len(names)} exported names: {len(unseen)} without a reference, {share:.0%} in a guide")
    if untold:
        print(f"in no guide: {', '.join(untold)}")
    if unseen:
        print(f"Not in docs/reference: {', '.join(unseen)}. Run python docs/generate.py, or add their package there.")
    if share < SHARE:
        print(f"At least {SHARE:.0%} of the names must be in a guide: name them there, or take helpers out of __all__.")
    return bool(unseen) or share < SHARE


if __name__ == "__main__":
    sys.exit(main())
