r"""The review of a restoration: its measures on results that are known, and its page."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scoregen.restoration import Clean, Counts, Reading, Speckle, open_scenes, units_of
from scoregen.restoration.page import write_review
from scoregen.restoration.review import Review

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
    (line,) = write_review(review(tmp_path, scene(), unit, scale), {"unit": unit})
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


def test_a_page_beside_clean_images_has_their_measures_and_picture(tmp_path):
    found = review(tmp_path, scene(), "amplitude", 250.0)
    (tmp_path / "clean").mkdir()
    np.save(tmp_path / "clean" / "a.npy", np.sqrt(250 * scene()).astype(np.float32))
    clean = Clean(open_scenes(str(tmp_path / "clean")), found.units, 1.0)
    beside = Review(found.scenes, found.units, found.reading, found.noise, found.out, clean=clean)
    (line,) = write_review(beside, {})
    (one,) = record(tmp_path)["measured"]
    page = (tmp_path / "out" / "report.html").read_text()
    speckled = np.nanmean(np.square(np.load(tmp_path / "in" / "a.npy").astype(float) ** 2 / 250 - scene()))
    assert one["psnr_before"] == pytest.approx(-10 * np.log10(speckled), abs=1e-3) and one["psnr_after"] > 100
    assert one["ssim_before"] < 0.5 and one["ssim_after"] == pytest.approx(1)
    assert "beside the clean images: PSNR" in line and page.count("<img") == 5 and "psnr after" in page


@pytest.mark.parametrize("gain, scale", [(1.0, 40.0), (0.5, 20.0)])
def test_counts_beside_their_mean_have_residuals_of_pure_noise(gain, scale, tmp_path):
    r"""9,216 pixels: 5 sigma of the mean are .05, of the variance .08."""
    for folder, values in (("in", np.random.default_rng(0).poisson(40 * scene())), ("out/images", 40 * scene())):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "a.npy", (gain * values).astype(np.float32))
    scenes = open_scenes(str(tmp_path / "in"))
    units = [[units_of(np.dtype("f4"), "intensity", scale, None, 1.0)]]
    found = Review(scenes, units, Reading(), Counts(gain), tmp_path / "out").measures(0, 0).values
    assert abs(found["residual_mean"]) < 0.05 and found["residual_variance"] == pytest.approx(1, abs=0.08)
    assert abs(found["residual_correlation"]) < 0.05
    (line,) = write_review(Review(scenes, units, Reading(), Counts(gain), tmp_path / "out"), {})
    assert line.startswith("residual of the counts over their noise: mean")


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
