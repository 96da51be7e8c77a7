r"""The notebooks run from the top to the end, with everything small, and are kept without outputs."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = {"STEPS": 3, "SAMPLES": 10, "PATCHES": 100, "INPUTS": 5, "DRAWS": 200, "SCENES": 2}
# what each notebook leaves behind, by name
EXPECTED = {
    "first_model": lambda left: tuple(left["label"].shape) == (10,),
    "despeckling": lambda left: left["restored"].shape == left["clean"].shape and bool((left["deviation"] > 0).all()),
    "certifying": lambda left: len(left["certificates"]) == 5,
}


def cells_of(notebook: Path) -> list[dict]:
    r"""The code cells."""
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def small(source: str) -> str:
    r"""The first code cell with the numbers of SMALL; FOLDER and what describes the data stay."""
    return re.sub(r"^(\w+) = \d+", lambda m: f"{m[1]} = {SMALL[m[1]]}" if m[1] in SMALL else m[0], source, flags=re.M)


def test_every_notebook_is_tried():
    assert {notebook.stem for notebook in NOTEBOOKS} == set(EXPECTED)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook):
    for cell in cells_of(notebook):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(notebook, tmp_path, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyplot, "show", lambda: pyplot.close("all"))
    first, *others = ["".join(cell["source"]) for cell in cells_of(notebook)]
    assert small(first) != first and "STEPS = 3 " in small(first)
    left: dict = {}
    for k, source in enumerate([small(first), *others]):
        exec(compile(source, f"{notebook.name}, code cell {k}", "exec"), left)
    assert EXPECTED[notebook.stem](left)
    assert (tmp_path / left["FOLDER"] / "checkpoints" / "last").is_dir()
