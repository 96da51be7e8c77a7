r"""Writes docs/reference: the API from the docstrings, the configuration from conf/.

    python docs/generate.py            # writes the pages; `make docs` and tests/test_reference.py compare them

The pages are plain Markdown, so they are read on any host of the code, and are part of the site too. The sources are
parsed by griffe; the networks and samplers are not imported.
"""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import griffe

from scoregen.config import conf_dir
from scoregen.help import JOBS, help_of, options_of

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "reference"
PACKAGES = {
    "jobs": "the jobs; `import scoregen` has them too, and `scoregen.load`",
    "sde": "processes and charts",
    "models": "denoisers, networks, guidance, inverse problems",
    "models.interop": "networks of diffusers, and the processes of its schedulers",
    "losses": "what is minimised",
    "samplers": "from noise to data, likelihood, encoding, restoring",
    "priors": "denoisers as terms of your own objective",
    "smoothing": "certificates of robustness",
    "metrics": "distances and measures",
    "restoration": "speckled scenes: files, units, pixels without data",
    "data": "sources and parts",
    "tables": "tables of mixed columns: kinds, vectors of rows, files",
    "training": "the loop, averages, schedules, trackers",
    "monitors": "what looks at a training while it runs",
}
GENERATED = "<!-- written by docs/generate.py; edit the docstrings or conf/ and run it again -->\n\n"
Documented = griffe.Class | griffe.Function | griffe.Attribute


def pages() -> dict[str, str]:
    r"""The Markdown of each page of the reference, by its name."""
    logging.getLogger("griffe").setLevel(logging.CRITICAL)  # "a, b:" names two arguments at once
    package = griffe.load("scoregen", search_paths=[str(ROOT)], docstring_parser="google", resolve_aliases=True)
    found = {f"{name}.md": _package_page(package[name], what) for name, what in PACKAGES.items()}
    return {"index.md": _index(), "configuration.md": _configuration()} | found


def _index() -> str:
    lines = [f"- [scoregen.{name}]({name}.md): {what}" for name, what in PACKAGES.items()]
    listed = "\n".join(lines)
    return (
        f"{GENERATED}# Reference\n\nAfter this page you know where each public name and key is described. A name is "
        f"public if it stands on these pages.\n\n{listed}\n- [configuration.md](configuration.md): the keys of every "
        "job, and the options of every group\n"
    )


def _package_page(module: griffe.Module, what: str) -> str:
    names = sorted((str(name) for name in module.exports or []), key=str.lower)
    listed = ", ".join(f"[{name}](#{name.lower()})" for name in names)
    parts = [f"# {module.path}", what[0].upper() + what[1:] + ".", listed]
    for name in names:
        parts += _entry(name, module[name])
    return GENERATED + "\n\n".join(parts) + "\n"


def _entry(name: str, found: griffe.Object | griffe.Alias) -> Iterator[str]:
    r"""Signature, text and public methods of one exported name."""
    target = found.final_target if isinstance(found, griffe.Alias) else found
    yield f"## {name}"
    yield f"```python\n{_signature(name, target)}\n```"
    yield from _text(target)
    if isinstance(target, griffe.Class):
        for member in target.members.values():
            if isinstance(member, griffe.Function) and member.docstring and not member.name.startswith("_"):
                yield f"**{name}.{member.name}**"
                yield f"```python\n{_signature(member.name, member)}\n```"
                yield from _text(member)


def _signature(name: str, target: griffe.Object) -> str:
    r"""As it is called: without `self`, one argument a line where it is long."""
    if isinstance(target, griffe.Attribute):
        return f"{name} = {target.value}"
    if isinstance(target, griffe.Function) and "property" in target.labels:
        return f"{name}: {target.returns}"
    given = target.parameters if isinstance(target, griffe.Function | griffe.Class) else []
    shown, bare = [], False
    for parameter in given:
        if parameter.name in ("self", "cls") or str(parameter.annotation).startswith("ClassVar"):
            continue  # griffe counts the class variables of a dataclass among its arguments
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and not bare:
            shown.append("*")
        bare |= kind in (griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_positional)
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        note = f": {parameter.annotation}" if parameter.annotation is not None else ""
        default = parameter.default if parameter.required is False and not stars else None
        shown.append(f"{stars}{parameter.name}{note}" + (f" = {default}" if default is not None else ""))
    returns = f" -> {target.returns}" if isinstance(target, griffe.Function) and target.returns else ""
    line = f"{name}({', '.join(shown)}){returns}"
    return line if len(line) <= 100 else f"{name}(\n    " + ",\n    ".join(shown) + f",\n){returns}"


def _text(target: griffe.Object) -> Iterator[str]:
    r"""A docstring as Markdown."""
    if target.docstring is None:
        return
    for section in target.docstring.parse("google"):
        if isinstance(section, griffe.DocstringSectionText):
            yield from map(_paragraph, re.split(r"\n\s*\n", section.value.strip()))
        elif isinstance(section, griffe.DocstringSectionParameters | griffe.DocstringSectionAttributes):
            title = "Arguments" if isinstance(section, griffe.DocstringSectionParameters) else "Attributes"
            yield f"*{title}*"
            found = [(_listed(item), item.description) for item in section.value]
            yield _entries(found, _names(target).__contains__)
        elif isinstance(section, griffe.DocstringSectionRaises):
            yield "*Raises*"
            raised = [(str(item.annotation), item.description) for item in section.value]
            yield _entries(raised, lambda name: name.endswith(("Error", "Interrupted")))
        elif isinstance(section, griffe.DocstringSectionReturns | griffe.DocstringSectionYields):
            yield f"*Returns* {_line(' '.join(item.description for item in section.value))}"
        elif isinstance(section, griffe.DocstringSectionAdmonition):
            title = section.value.kind.capitalize()  # of two lines, the first of which griffe takes for a title
            yield f"{title}: {_line(f'{section.title} {section.value.description}')}"
        else:
            raise TypeError(f"{target.path}: a section of the kind {section.kind} has no form here. Add one to _text.")


def _listed(item: griffe.DocstringParameter | griffe.DocstringAttribute) -> str:
    r"""Its name; of "a, b: text" among attributes griffe takes the second name for an annotation."""
    return f"{item.name} {item.annotation}" if item.name.endswith(",") else item.name


def _names(target: griffe.Object) -> set[str]:
    r"""Arguments and attributes that a docstring may describe."""
    given = target.parameters if isinstance(target, griffe.Function | griffe.Class) else []
    return {parameter.name.lstrip("*") for parameter in given} | set(target.members)


def _entries(described: list[tuple[str, str]], known: Callable[[str], bool]) -> str:
    r"""A list with an entry for each name, also where a line of the docstring goes on with "... name: text"."""
    entries: list[tuple[str, str]] = []
    for name, text in described:
        entries.append((name, ""))
        for part in re.split(r"(?<=[.;?])\s+(?=(?:\w+, )*\w+: )", text):
            names, colon, rest = part.partition(": ")
            if colon and all(map(known, names.split(", "))) and entries[-1][1]:
                entries.append((names, rest))
            else:
                entries[-1] = (entries[-1][0], f"{entries[-1][1]} {part}".strip())
    return "\n".join(f"- `{'`, `'.join(name.split(', '))}`: {_line(text)}" for name, text in entries)


def _paragraph(text: str) -> str:
    r"""Running text; an indented block keeps its lines, since it is a law."""
    plain: list[str] = []
    for line in text.splitlines():
        plain.append(f"> {_escaped(line.strip())}  " if line.startswith("    ") else _escaped(line.strip()))
    # a block quote ends with an empty line, else what follows is read as part of it
    return re.sub(r"(?m)^(> .*)\n(?!>)", r"\1\n\n", re.sub(r"(?m)^(?!>)(.+)\n(?=>)", r"\1\n\n", "\n".join(plain)))


def _line(text: str) -> str:
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    r"""Text whose formulas Markdown does not take for emphasis, tags or links; `code` stays."""
    parts = re.split(r"(`[^`]*`)", text)
    special = r"([*<\\]|(?<!\w)_|_(?!\w)|(?<=\])(?=\())"
    return "".join(part if k % 2 else re.sub(special, r"\\\1", part) for k, part in enumerate(parts))


def _configuration() -> str:
    parts = ["# Configuration", "After this page you know every key of every job, as `scoregen JOB --help` lists them."]
    for job in JOBS:
        parts += [f"## {job}", f"```text\n{help_of(job)}\n```"]
    parts += ["## Groups", "An option is a file: `GROUP=OPTION`. Its keys are overridden by `GROUP.KEY=VALUE`."]
    for group in sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir()):
        if group in ("experiment", "hydra"):
            continue
        parts.append(f"### {group}")
        for option in options_of(group):
            text = (conf_dir() / group / f"{option}.yaml").read_text().strip()
            parts += [f"**{group}={option}**", f"```yaml\n{text}\n```"]
    return GENERATED + "\n\n".join(parts) + "\n"


def main() -> None:
    OUT.mkdir(exist_ok=True)
    written = pages()
    for file in OUT.glob("*.md"):
        if file.name not in written:
            file.unlink()
    for name, text in written.items():
        (OUT / name).write_text(text)


if __name__ == "__main__":
    main()
