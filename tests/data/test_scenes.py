r"""Windows of scenes: the values of the file, at places of their own, in the units that were stated."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from scoregen import parallel
from scoregen.data import Scenes
from scoregen.errors import UserError

tifffile = pytest.importorskip("tifffile")
SHAPE = (20, 30)


def values(dtype=np.float32, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).uniform(1000, 9000, SHAPE)
    return (x + 1j * x[::-1]).astype(dtype) if np.dtype(dtype).kind == "c" else x.astype(dtype)


def folder(root: Path, array: np.ndarray, kind: str) -> Path:
    root.mkdir(exist_ok=True)
    if kind == "npy":
        np.save(root / "a.npy", array)
    else:
        options = {"compression": "zlib", "tile": (16, 16)} if kind == "packed" else {}
        order = ">" if kind == "big" else "<"
        tifffile.imwrite(root / "a.tif", array, byteorder=order, metadata=None, **options)
    return root


def opened(path: Path, **options) -> Scenes:
    return Scenes(str(path), **{"size": 8, "test": "none", **options})


@pytest.mark.parametrize("kind", ["npy", "mapped", "packed", "big"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.complex64])
def test_a_window_has_the_values_of_its_place(kind, dtype, tmp_path):
    scene = values(dtype)
    source = opened(folder(tmp_path, scene, kind), scale=1.0)
    assert source.shape == (1, 8, 8) and len(source.train) == round(4 * 20 * 30 / 64)
    read = scene.astype(np.complex64 if dtype == np.complex64 else np.float32)
    kept = {read[i : i + 8, j : j + 8].tobytes() for i in range(13) for j in range(23)}
    assert {window.numpy().tobytes() for window in source.train[:][0][:, 0]} <= kept
    assert source.train.decodes == (kind == "packed")


def test_places_are_spread_and_always_the_same(tmp_path):
    r"""Of 300 windows of 13 x 23 possible places: each row and each column is drawn."""
    scene = np.arange(600, dtype=np.float64).reshape(SHAPE) + 1
    source = opened(folder(tmp_path, scene, "npy"), cover=32.0)
    corners = source.train[:][0][:, 0, 0, 0] - 1
    assert set((corners // 30).tolist()) == set(range(13)) and set((corners % 30).tolist()) == set(range(23))
    again = opened(tmp_path, cover=32.0)
    order = torch.arange(len(again.train)).flip(0)
    assert torch.equal(again.train[order][0].flip(0), source.train[:][0])
    assert again.train.fingerprint() == source.train.fingerprint() != opened(tmp_path).train.fingerprint()


@pytest.mark.parametrize(
    ("dtype", "options", "exact"),
    [
        (np.float32, {}, lambda v: v),
        (np.float32, {"scale": 5000.0}, lambda v: v / 5000),
        (np.float32, {"unit": "amplitude"}, lambda v: v**2),
        (np.float32, {"unit": "amplitude", "scale": 5000.0}, lambda v: (v / 5000) ** 2),
        (np.float32, {"unit": "db", "scale": 25.0}, lambda v: 10 ** ((v - 25) / 10)),
        (np.uint16, {}, lambda v: v / 65535),
        (np.uint16, {"unit": "amplitude"}, lambda v: (v / 65535) ** 2),
        (np.uint16, {"scale": 1.0}, lambda v: v),
    ],
)
def test_units_are_those_of_restore(dtype, options, exact, tmp_path):
    value = 32.0 if options.get("unit") == "db" else 3010.0
    x = opened(folder(tmp_path, np.full(SHAPE, value, dtype), "npy"), **options).train[0][0]
    torch.testing.assert_close(x, torch.full((1, 8, 8), exact(value)), rtol=1e-6, atol=0)


def test_complex_amplitudes_are_divided_by_the_scale(tmp_path):
    source = opened(folder(tmp_path, np.full(SHAPE, 30 + 40j), "npy"), scale=50.0)
    assert torch.equal(source.train[0][0], torch.full((1, 8, 8), 0.6 + 0.8j))
    assert source.train.units(source.train[0][0]).is_complex()


@pytest.mark.parametrize("mark", ["nan", "key", "tag"])
def test_pixels_without_data_are_never_drawn(mark, tmp_path):
    scene = values()
    scene[:, :12] = math.nan if mark == "nan" else -9999
    tags = [(42113, 2, 6, "-9999", True)] if mark == "tag" else []
    tifffile.imwrite(tmp_path / "a.tif", scene, extratags=tags, metadata=None)
    source = opened(tmp_path, nodata=-9999.0 if mark == "key" else None)
    assert bool((source.train[:][0] >= 1000).all())


def test_a_scene_without_a_window_of_data_is_named(tmp_path):
    scene = values()
    scene[::5, ::5] = math.nan
    with pytest.raises(UserError, match=r"window 0 of '.*a\.npy' has pixels without data at 64 random places"):
        opened(folder(tmp_path, scene, "npy"))


def test_pages_are_scenes_and_bands_are_channels(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for k in (1, 2):
            file.write(np.full((*SHAPE, 3), k * np.arange(1, 4), np.float32), photometric="rgb", contiguous=False)
    source = opened(tmp_path)
    x = source.train[:][0]
    assert source.shape == (3, 8, 8) and len(x) == 2 * round(4 * 600 / 64)
    assert torch.equal(x[0, :, 0, 0], torch.tensor([1.0, 2.0, 3.0])) and torch.equal(x[-1], 2 * x[0])


def test_scenes_of_other_sizes_are_held_out_as_a_whole(tmp_path):
    for k in range(10):
        np.save(tmp_path / f"{k}.npy", np.full((10 + k, 20), k + 1.0))
    source = Scenes(str(tmp_path), size=8)
    train, test = ({*part[:][0].unique().tolist()} for part in (source.train, source.test))
    assert len(test) == 1 and len(train) == 9 and not train & test


def test_folders_are_the_parts(tmp_path):
    for k, name in enumerate(("train", "val", "test")):
        folder(tmp_path / name, np.full(SHAPE, k + 1.0), "npy")
    source = Scenes(str(tmp_path), size=8)
    assert [source.part(name)[0][0].max().item() for name in ("train", "validation", "test")] == [1, 2, 3]
    alone = opened(tmp_path / "train", test=str(tmp_path / "test"))
    assert alone.test[0][0].max().item() == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"test": 0.1}, r"data\.test: a number of windows is not held out, got 0\.1: those of one scene overlap"),
        ({"test": "auto"}, r"data\.test: one scene cannot be held out as a whole\. Give data\.test=none"),
        ({"size": 21}, r"data\.size: '.*a\.npy' has 20 x 30 pixels, fewer than data\.size=21\. Lower it"),
        ({"range": [0, 100]}, r"data\.range: 100 % of the values of '.*a\.npy' lie outside \[0, 100\]"),
    ],
)
def test_what_cannot_be_is_refused(options, text, tmp_path):
    with pytest.raises(UserError, match=text):
        opened(folder(tmp_path, values(), "npy"), **options)


def test_scenes_that_differ_are_named(tmp_path):
    np.save(tmp_path / "a.npy", values())
    np.save(tmp_path / "b.npy", values(np.uint16))
    with pytest.raises(UserError, match=r"alike, but '.*a\.npy' has 1 channels of float32, '.*b\.npy' 1 of uint16"):
        opened(tmp_path)


def test_other_values_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"has values int32\. Write floats, complex numbers, or unsigned integers"):
        opened(folder(tmp_path, values(np.int32), "mapped"))


@pytest.mark.parametrize(
    ("mark", "options", "text"),
    [
        (-9999, {"unit": "db"}, r"data\.nodata: '.*a\.npy' has 8 of 64 .*beyond 200 decibels.*Give data\.nodata=-9999"),
        (-9999, {}, r"data\.unit: '.*a\.npy' has negative values .*down to -9999.*unit=db .*or data\.nodata=VALUE"),
    ],
)
def test_marks_of_missing_pixels_are_no_intensities(mark, options, text, tmp_path):
    scene = np.full((8, 8), 5, np.float32)
    scene[0] = mark
    with pytest.raises(UserError, match=text):
        opened(folder(tmp_path, scene, "npy"), **options)


def test_overviews_are_no_scenes_and_white_is_not_zero(tmp_path, capsys):
    scene = values(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(scene, metadata=None)
        file.write(scene[::2, ::2], subfiletype=1, metadata=None)
    assert [plane.shape for plane in opened(tmp_path / "a.tif", scale=1.0).train.planes] == [(1, *SHAPE)]
    assert "has 1 overviews or masks beside its scenes, which are left out" in capsys.readouterr().err
    tifffile.imwrite(tmp_path / "b.tif", scene, photometric="miniswhite")
    with pytest.raises(UserError, match="says that 0 is white"):
        opened(tmp_path / "b.tif")


@pytest.mark.parametrize("unit", ["intensity", "amplitude"])
def test_integers_without_a_scale_that_would_be_dark_are_said(tmp_path, capsys, unit):
    np.save(tmp_path / "a.npy", values(np.uint16) // 10)
    opened(tmp_path, unit=unit)
    assert re.search(r"data.scale: the integers of '.*' reach 8\d\d in 16 windows, and", capsys.readouterr().err)
    parallel.say_once.cache_clear()
    opened(tmp_path, unit=unit, scale=900)
    assert capsys.readouterr().err == ""
