r"""Images with speckle in other units than the process expects are refused before a training, with what to do."""

from pathlib import Path

import numpy as np
import pytest

from scoregen.data import Npz, Scenes
from scoregen.errors import UserError
from scoregen.jobs.speckle_data import check_speckle
from scoregen.losses import DenoisingScoreMatching, SpeckleSplit
from scoregen.sde import EDM, Multiplicative

LOOKS = 4
SDE = Multiplicative(EDM(), offset=0.02, data_range=(0.0, 1.0))


def scene(side: int = 64) -> np.ndarray:
    r"""Intensities of a flat scene of brightness 1/2 with speckle."""
    return 0.5 * np.random.default_rng(0).gamma(LOOKS, 1 / LOOKS, (side, side)).astype(np.float32)


def scenes(folder: Path, values: np.ndarray, **options) -> Scenes:
    np.save(folder / "a.npy", values)
    return Scenes(str(folder), size=16, test="none", **options)


def checked(source, looks: float = LOOKS, **options) -> list[str]:
    return check_speckle(SpeckleSplit(looks, **options), SDE, source)


def test_images_in_the_units_of_the_process_pass_without_a_word(tmp_path):
    amplitude = 900 * np.sqrt(scene())
    assert checked(scenes(tmp_path, amplitude, unit="amplitude", scale=900)) == []
    assert checked(scenes(tmp_path, 10 * np.log10(scene()) - 8, unit="db", scale=-8)) == []
    g = np.random.default_rng(0)
    single = np.sqrt(0.25) * (g.normal(size=(64, 64)) + 1j * g.normal(size=(64, 64)))
    assert checked(scenes(tmp_path, single.astype(np.complex64)), 1) == []


@pytest.mark.parametrize(
    "values, options, likely",
    [
        (900 * np.sqrt(scene()), {"unit": "amplitude"}, 900),  # the scale was forgotten
        (900 * np.sqrt(scene()), {"unit": "amplitude", "scale": 30_000}, 900),
        (10 * np.log10(scene()) + 30, {"unit": "db"}, 30),
        ((600 * np.sqrt(scene())).astype(np.uint16), {"unit": "amplitude"}, 600),  # of 65535
    ],
    ids=["amplitude", "too large", "db", "16 bits"],
)
def test_another_scale_is_refused_with_the_likely_one(values, options, likely, tmp_path):
    r"""The bright end, .5, is put at 1.02: amplitudes have .70 of the scale, decibels 3.1 less."""
    with pytest.raises(UserError, match=r"^data: the bright end .* the process expects 1.02 .*data.scale=") as caught:
        checked(scenes(tmp_path, values, **options))
    found = float(str(caught.value).split("data.scale=")[1].split()[0])
    exact = likely - 3.1 if options["unit"] == "db" else 0.7 * likely
    assert found == pytest.approx(exact, rel=0.05, abs=0.4)
    assert checked(scenes(tmp_path, values, **(options | {"scale": found}))) == []


def test_arrays_are_told_how_to_state_their_range(tmp_path):
    np.savez(tmp_path / "a.npz", images=500 * scene().reshape(4, 1, 32, 32))
    source = Npz(str(tmp_path / "a.npz"), range=[0.0, float("inf")], test="none")
    with pytest.raises(UserError, match=r"Divide the intensities by 2[.\de+]+, or state .*sde.data_range"):
        checked(source)


def test_zeros_are_refused_before_the_first_step(tmp_path):
    values = scene()
    values[:8] = 0
    source = scenes(tmp_path, values)
    with pytest.raises(UserError, match=r"training samples are 0 .*data.nodata=0 if they mean no data, or loss.floor="):
        checked(source)
    assert checked(source, floor=0.01) == []
    assert checked(scenes(tmp_path, values, nodata=0)) == []


def test_amplitudes_taken_for_intensities_are_told(tmp_path):
    (line,) = checked(scenes(tmp_path, np.sqrt(scene())))
    assert line.startswith("loss.looks: 4 given, but homogeneous windows have 1") and "data.unit=amplitude" in line


def test_other_losses_take_any_data(tmp_path):
    assert check_speckle(DenoisingScoreMatching(), SDE, scenes(tmp_path, 1e6 * scene())) == []
