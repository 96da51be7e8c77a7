r"""Units: a value outside of the stated range is refused with the likely one; the same pictures are the same."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from scoregen import parallel
from scoregen.data import Folder, Npz
from scoregen.data.units import as_range, check_units, percent
from scoregen.errors import UserError
from scoregen.jobs.picks import pick_chart
from scoregen.metrics import Pixels, Settings, evaluate

DIGITS = (load_digits().images[:200] / 16).astype(np.float32)[:, None]
UNITS = {"unit": (DIGITS, [0, 1]), "signed": (2 * DIGITS - 1, [-1, 1]), "bytes": (255 * DIGITS, [0, 255])}


def archive(folder, images, **options):
    np.savez(folder / "a.npz", images=images)
    return Npz(str(folder / "a.npz"), **options)


@pytest.mark.parametrize("name, likely", [("signed", r"\[-1,1\]"), ("bytes", r"\[0,255\]")])
def test_floats_outside_the_range_are_refused_with_the_share_and_the_likely_range(tmp_path, name, likely):
    images = UNITS[name][0]
    share = 100 * np.mean((images < 0) | (images > 1))
    with pytest.raises(UserError, match=rf"data.range: {share:.2g} % of the values .* lie outside \[0, 1\].*{likely}"):
        archive(tmp_path, images)


@pytest.mark.parametrize("name", UNITS)
def test_with_a_stated_range_the_chart_and_the_units_are_those_of_the_same_pictures(tmp_path, name):
    images, stated = UNITS[name]
    source = archive(tmp_path, images, range=stated)
    assert source.range == tuple(stated)
    chart = pick_chart(source)
    y = chart["scale"] * source.train.in_units(slice(None))[0] + chart["shift"]
    unit = archive(tmp_path, DIGITS).train.in_units(slice(None))[0]
    torch.testing.assert_close(y, 2 * unit - 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">f4", ">u2"])
@pytest.mark.parametrize("stated", [[0, 1], [-1, 1], [10, 20]])
def test_every_type_is_read_in_the_units_of_the_range(tmp_path, dtype, stated):
    fraction = np.linspace(0, 1, 2 * 4 * 5).reshape(2, 4, 5)
    low, high = stated
    kind = np.dtype(dtype)
    full = np.iinfo(kind).max if kind.kind == "u" else None
    images = np.round(fraction * full).astype(kind) if full else (fraction * (high - low) + low).astype(kind)
    source = archive(tmp_path, images, range=stated, test="none")
    x = source.train.in_units(slice(None))[0]
    assert source.train[0][0].dtype == (torch.uint8 if kind == np.uint8 else torch.float32)
    step = 1 / full if full else np.finfo(np.float16 if kind == np.float16 else np.float32).eps * 10
    np.testing.assert_allclose(x[:, 0].numpy(), fraction * (high - low) + low, rtol=0, atol=2 * step * (high - low))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 1.01])
def test_a_value_that_was_not_in_the_sample_is_refused_when_it_is_drawn(tmp_path, monkeypatch, value):
    monkeypatch.setattr("scoregen.data.rows._SEEN", 256)  # two of the rows
    images = np.random.default_rng(0).random((20, 4, 4))
    images[7, 1, 2] = value
    source = archive(tmp_path, images, test="none")
    assert len(source.train[[0, 6, 8, 19]][0]) == 4
    with pytest.raises(UserError, match="not finite" if not math.isfinite(value) else "outside"):
        _ = source.train[[6, 7]]


def test_round_off_is_no_mistake_and_what_is_more_is():
    check_units(torch.tensor([0.0, 1 + 1e-6]), (0.0, 1.0), "x")
    check_units(torch.tensor([0.0, 1e30]), (0.0, math.inf), "x")
    with pytest.raises(UserError, match="outside"):
        check_units(torch.tensor([0.0, 1 + 1e-4]), (0.0, 1.0), "x")
    with pytest.raises(UserError, match="outside"):
        check_units(torch.tensor([-1e-3, 1e30]), (0.0, math.inf), "x")


@pytest.mark.parametrize(
    "given", [[0], [1, 0], [0, 0], ["a", 1], [-math.inf, 0], [math.nan, 1], [1, math.inf], 3, "01"]
)
def test_a_range_is_two_increasing_numbers(given):
    with pytest.raises(UserError, match=r"data.range: must be the lowest and the highest value"):
        as_range(given)


@pytest.mark.parametrize(
    "images, stated, text",
    [
        (np.full((9, 4, 4), 0.5), None, r"all values of .* are 0.5. Is this the right file\?"),
        (np.zeros((9, 4, 4), np.uint8), None, r"all values of .* are 0."),
        (DIGITS, [0, 255], r"hardly vary: .* from 0 to 1, 0.39 % of the range \[0, 255\]. Is it \[0, 1\]\?"),
        (DIGITS, None, ""),
        (255 * DIGITS, [0, 255], ""),
    ],
    ids=["constant", "black", "of another range", "digits", "digits in bytes"],
)
def test_data_that_hardly_vary_are_told(tmp_path, capsys, images, stated, text):
    parallel.say_once.cache_clear()
    archive(tmp_path, images, range=stated)
    error = capsys.readouterr().err
    assert (not error) if not text else __import__("re").search(text, error), error


def test_a_share_is_never_rounded_to_none_or_all():
    assert [percent(x) for x in (1.0, 0.9999, 0.5, 1e-6)] == ["100 %", "99.9 %", "50 %", "0.0001 %"]


def test_float_pictures_of_a_folder_are_in_the_stated_range(tmp_path):
    for k in range(4):
        Image.fromarray(np.full((4, 4), 10.0 * k, np.float32)).save(tmp_path / f"{k}.tif")
    with pytest.raises(UserError, match=r"of the values of '.*1.tif' lie outside \[0, 1\].* Is it \[0, 255\]"):
        Folder(str(tmp_path))
    source = Folder(str(tmp_path), range=[0, 255], test="none")
    assert sorted(float(x.max()) for x in source.train[:][0]) == [0, 10, 20, 30]


def test_the_same_pictures_in_other_units_have_the_same_distance(tmp_path):
    generated = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = {}
    for name, (images, stated) in UNITS.items():
        low, high = stated
        source = archive(tmp_path, images, range=stated)
        report = evaluate(low + (high - low) * generated, source, Pixels(), Settings(bootstrap=0, subset=60))
        found[name] = report["FD-pixels"].value
    assert found["unit"] > 0.5
    assert found["signed"] == pytest.approx(found["unit"], rel=1e-3)  # a few values round to the other byte
    assert found["bytes"] == pytest.approx(found["unit"], rel=1e-3)


def test_pictures_of_values_that_are_not_finite_are_refused_with_their_share(tmp_path):
    for k in range(2):
        Image.fromarray(np.array([[0.5, np.nan], [0, 1]], np.float32)).save(tmp_path / f"{k}.tif")
    with pytest.raises(UserError, match=r"25 % of the values of '.*0.tif' are not finite"):
        Folder(str(tmp_path))
