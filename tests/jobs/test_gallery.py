r"""The gallery of a run: every section is there, with a figure or the reason why there is none."""

import re

import pytest
import torch
from tiny import DIGITS, TOY, command, job, train

from scoregen.errors import UserError
from scoregen.jobs.gallery import data_of
from scoregen.jobs.gallery_page import labelled_png

FAST = ["n=10", "samplers=[ddim]", "calls=[1]", "sampler=ddim", "sampler.steps=2"]
HEADINGS = [
    "Samples, none left out",
    "From noise to data",
    "The same seeds over samplers and network calls",
    "Quality against calls",
    "One, two, four and thirty-five calls",
    "Additive beside multiplicative",
    "Interpolation",
    "Training curves",
    "Nearest neighbours in the training data",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "digits", *DIGITS, "trainer.steps=2")
    train(folder / "toy", *TOY, "trainer.steps=2")
    return folder


def sections(page: str) -> dict[str, tuple[str, int]]:
    r"""The sentence and the number of figures of each section."""
    parts = re.split(r"<h2>(.*?)</h2>", page)[1:]
    bodies = zip(parts[::2], parts[1::2], strict=True)
    return {name: (re.search(r"<p>(.*?)</p>", body, re.DOTALL)[1], body.count("<img")) for name, body in bodies}


def test_each_section_of_pictures_has_a_figure(runs, tmp_path, capsys):
    assert command("gallery", f"run={runs}/digits", f"out={tmp_path}/g", *FAST) == 0, capsys.readouterr().err
    page = (tmp_path / "g" / "gallery.html").read_text()
    found = sections(page)
    assert list(found) == HEADINGS
    empty = {name for name, (_, figures) in found.items() if not figures}
    assert empty == {"Additive beside multiplicative"} and "beside=RUN" in found["Additive beside multiplicative"][0]
    assert not re.search(r"<script|(src|href)=.?http", page)


def test_what_does_not_apply_is_said_in_its_place(runs, tmp_path):
    made = job("gallery", f"checkpoint={runs}/toy", *FAST, "samplers=[ddim,adaptive_flow]").run(tmp_path / "g")
    found = sections((made / "gallery.html").read_text())
    assert list(found) == HEADINGS
    assert "grey and RGB images" in found["From noise to data"][0]
    assert "grey and RGB images" in found["Interpolation"][0]
    assert "adaptive_flow" in found["The same seeds over samplers and network calls"][0]


def test_data_that_would_be_fetched_are_not_read(monkeypatch, tmp_path):
    node = {"_target_": "scoregen.data.HuggingFace", "path": "owner/name"}
    monkeypatch.setattr("scoregen.loading.describe", lambda folder: {"data": node})
    assert "may be fetched" in data_of(tmp_path)
    node |= {"_target_": "os.system"}
    assert "names no data of scoregen.data" in data_of(tmp_path)


def test_values_out_of_range_are_refused():
    with pytest.raises(UserError, match="n must be >= 10"):
        job("gallery", "n=9")
    with pytest.raises(UserError, match="calls: must not be an empty list"):
        job("gallery", "calls=[]")


def test_a_labelled_grid_shows_black_and_white_at_the_ends_of_the_range():
    import io

    import numpy as np
    from PIL import Image

    cells = [torch.tensor([2.0, 4.0]).reshape(2, 1, 1, 1)]
    pixels = np.asarray(Image.open(io.BytesIO(labelled_png(["row"], ["a", "b"], cells, (2.0, 4.0)))).convert("L"))
    assert (pixels < 10).mean() > 0.1 and (pixels == 255).mean() > 0.1
