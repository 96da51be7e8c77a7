r"""The review of a restoration: its measures on results that are known, and its page."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scoregen.restoration import Reading, Review, Speckle, open_scenes, units_of, write_review

LOOKS = 4


def scene() -> np.ndarray:
    r"""Four fields of 48 x 48."""
    return np.kron(np.array([[0.2, 0.5], [0.8, 0.3]]), np.ones((48, 48)))


def review(tmp_path: Path, restored: np.ndarray, unit: str = "intensity", scale: float = 1.0) -> Review:
    r"""Scenes with speckle in a folder, and given results beside them, in a unit and a scale."""
    clean = scene()
    speckled = clean * np.random.default_rng(0).gamma(LOOKS, 1 / LOOKS, clean.shape)
    speckled.reshape(-1)[:5] = np.nan
    (tmp_path / "in").mkdir()
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "std").mkdir()
    for folder, values in (("in", speckled), ("out/images", restored)):
        values = scale * values
        np.save(tmp_path / folder / "a.npy", (np.sqrt(values) if unit == "amplitude" else values).astype(np.float32))
    np.save(tmp_path / "out" / "std" / "a.npy.npy", np.full(restored.shape, 0.1, np.float32))
    scenes = open_scenes(str(tmp_path / "in"))
    one = np.sqrt(scale) if unit == "amplitude" else scale  # the value of an intensity of 1
    units = [[units_of(p.dtype, unit, one, None, 1.0) for p in s.planes] for s in scenes]
    return Review(scenes, units, Reading(), Speckle(LOOKS), tmp_path / "out")


def record(place: Path) -> dict:
    return json.loads((place / "out" / "measures.json").read_text())


@pytest.mark.parametrize("unit, scale", [("intensity", 1.0), ("amplitude", 250.0)])
def test_the_true_scene_has_the_measures_of_pure_speckle_in_any_unit(unit, scale, tmp_path):
    line = write_review(review(tmp_path, scene(), unit, scale), {"unit": unit})
    (found,) = record(tmp_path)["measured"]
    assert found["ratio_mean"] == pytest.approx(1, abs=0.03)
    assert found["ratio_variance"] == pytest.approx(1 / LOOKS, rel=0.1)
    assert abs(found["ratio_correlation"]) < 0.04 and found["looks_before"] == pytest.approx(LOOKS, rel=0.2)
    assert found["looks_after"] > 1e3 and "variance 0.2" in line


def test_what_left_the_speckle_and_what_lost_the_scene_are_told_apart(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    lost = review(tmp_path / "a", np.full((96, 96), 0.45)).measures(0, 0).values
    assert lost["ratio_variance"] > 0.5 and lost["ratio_correlation"] > 0.3
    kept = review(tmp_path / "b", scene())
    np.save(tmp_path / "b" / "out" / "images" / "a.npy", np.load(tmp_path / "b" / "in" / "a.npy"))
    same = kept.measures(0, 0).values
    assert (same["ratio_mean"], same["ratio_variance"]) == (1, 0) and same["edges"] == pytest.approx(1)
    assert same["looks_after"] == same["looks_before"]


def test_the_page_holds_its_pictures_and_nothing_from_elsewhere(tmp_path):
    write_review(review(tmp_path, scene()), {"checkpoint": "<b>run</b>", "nothing": None})
    page = (tmp_path / "out" / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 4 and "a.npy, 96 x 96" in page and "http" not in page and "<script" not in page
    assert "&lt;b&gt;run" in page and "nothing" not in page
    before, after, ratio, spread = (np.asarray(Image.open(io.BytesIO(base64.b64decode(p)))) for p in pictures)
    assert before.shape == (96, 96) and after.std() < before.std()
    assert ratio.mean() == pytest.approx(127, abs=8)  # grey is 1
    clean = scene()
    assert np.median(spread[clean == 0.2]) > np.median(spread[clean == 0.8]) and before[0, 0] == 0  # no data: black


def test_a_large_scene_is_shown_from_its_middle_and_a_small_one_is_not_measured(tmp_path):
    big = np.tile(scene(), (6, 7))
    (tmp_path / "in").mkdir()
    (tmp_path / "out" / "images").mkdir(parents=True)
    for folder in ("in", "out/images"):
        np.save(tmp_path / folder / "big.npy", big.astype(np.float32))
        np.save(tmp_path / folder / "tiny.npy", big[:2, :2].astype(np.float32))
    scenes = open_scenes(str(tmp_path / "in"))
    units = [[units_of(p.dtype, "intensity", None, None, 1.0) for p in s.planes] for s in scenes]
    write_review(Review(scenes, units, Reading(), Speckle(LOOKS), tmp_path / "out"), {})
    page = (tmp_path / "out" / "report.html").read_text()
    assert "512 pixels from the middle of 672 x 576" in page and page.count("<img") == 6
    assert [one["looks_before"] for one in record(tmp_path)["measured"]][1] == "nan"
