r"""The site of the documentation: `make docs`."""

from pathlib import Path

from sphinx.application import Sphinx

from scoregen import __version__

project = "scoregen"
author = "the scoregen developers"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"scoregen {__version__}"
html_show_copyright = False
myst_heading_anchors = 4  # links to headings, as hosts of code make them


BESIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def as_a_site(app: Sphinx, name: str, source: list[str]) -> None:
    r"""What lies beside docs/ has a page of its own here; README is the first one."""
    text = source[0]
    for file, page in BESIDE.items():
        if page == f"{name}.md":
            text = (Path(app.srcdir).parent / file).read_text() + text
        text = text.replace(f"({file}", f"({page}").replace(f"(../{file}", f"({page}")
    source[0] = text.replace("(docs/", "(")


def setup(app: Sphinx) -> None:
    app.connect("source-read", as_a_site)
