r"""Units: what a value of a file is as an intensity, and back; restored values never turn into "no data"."""

import numpy as np
import pytest

from scoregen.data.intensity import intensity_of
from scoregen.errors import UserError
from scoregen.restoration.units import Units, deviation_in_unit, fits, in_unit, stored, units_of

X = np.array([1e-4, 0.02, 0.5, 3.0, 2000.0])


@pytest.mark.parametrize("unit", ["intensity", "amplitude", "db"])
def test_a_unit_and_back_is_the_identity(unit):
    np.testing.assert_allclose(intensity_of(in_unit(X, unit), unit), X, rtol=1e-12)


def test_the_units_are_those_of_radar():
    np.testing.assert_allclose(intensity_of(np.array([0.5, -10.0, 3.0]), "db"), 10 ** np.array([0.05, -1.0, 0.3]))
    assert intensity_of(np.array([3, 255], np.uint8), "amplitude").tolist() == [9, 65025]
    assert intensity_of(np.array([-3.0]), "amplitude").tolist() == [-9]  # which is refused
    assert intensity_of(np.array([3 - 4j]), "intensity").tolist() == [25]


@pytest.mark.parametrize("unit", ["amplitude", "db"])
def test_deviations_are_those_of_a_log_normal_law(unit):
    r"""A million draws: 5 sigma of a deviation are .4 %."""
    m, v = -0.7, 0.3
    draws = np.exp(m + np.sqrt(v) * np.random.default_rng(0).standard_normal(1_000_000))
    mean, deviation = np.exp(m + v / 2), np.exp(m + v / 2) * np.sqrt(np.expm1(v))
    assert deviation_in_unit(mean, deviation, unit) == pytest.approx(in_unit(draws, unit).std(), rel=4e-3)
    assert deviation_in_unit(mean, deviation, "intensity") == deviation


def test_the_scale_is_a_value_of_the_file():
    assert units_of(np.dtype("uint8"), "intensity", None, None, 1.0).scale == 255
    assert units_of(np.dtype("uint16"), "amplitude", None, None, 1.0).scale == 65535.0**2
    assert units_of(np.dtype("uint8"), "intensity", None, None, 255.0).scale == 1  # trained on 0 .. 255
    assert units_of(np.dtype("float32"), "amplitude", 300.0, 3.0, 1.0) == Units("amplitude", 9e4, 9.0)
    assert units_of(np.dtype("float32"), "db", -10.0, -30.0, 1.0) == Units("db", 0.1, 0.001)
    units = units_of(np.dtype("complex64"), "intensity", 10.0, None, 1.0)
    assert (units.unit, units.scale, units.value(4.0)) == ("amplitude", 100.0, 20.0)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ((np.dtype("complex64"), "db", None, None, 1.0), "unit: complex values .complex64. are amplitudes"),
        (
            (np.dtype("float32"), "amplitude", -2.0, None, 1.0),
            "scale: must be finite and > 0 for unit=amplitude, got -2",
        ),
        ((np.dtype("float32"), "intensity", None, 0.0, 1.0), "floor: must be finite and > 0 for unit=intensity, got 0"),
        ((np.dtype("float32"), "db", float("inf"), None, 1.0), "scale: must be finite, got inf"),
    ],
)
def test_units_that_mean_nothing_are_refused(arguments, text):
    with pytest.raises(UserError, match=text):
        units_of(*arguments)


@pytest.mark.parametrize(
    "dtype, mark, value, found",
    [
        ("uint8", 0, 0.3, 1),
        ("uint8", 255, 254.7, 254),
        ("uint16", 7, 7.2, 8),
        ("int16", -9999, 3.4, 3),
        ("float32", 0, 0.0, np.nextafter(np.float32(0), np.float32(1))),
        ("float32", 0.5, 0.5, np.nextafter(np.float32(0.5), np.float32(0))),
        ("float64", np.nan, 0.5, 0.5),
    ],
)
def test_no_restored_value_is_one_of_no_data(dtype, mark, value, found):
    kept, cut = stored(np.array([value]), np.zeros(1, dtype), [mark])
    assert kept.dtype == dtype and kept[0] == found and not cut.any()


def test_what_a_type_cannot_hold_is_cut_and_counted():
    kept, cut = stored(np.array([254.4, 255.4, 300.0, 1e9]), np.zeros(4, np.uint8), [])
    assert kept.tolist() == [254, 255, 255, 255] and cut.tolist() == [False, False, True, True]


def test_complex_values_keep_their_phase():
    z = np.array([3 + 4j, -1j, 0], np.complex64)
    kept, _ = stored(np.array([10.0, 2.0, 3.0]), z, [])
    assert kept.dtype == np.complex64
    np.testing.assert_allclose(kept, [6 + 8j, -2j, 3], rtol=1e-6)


def test_marks_that_a_type_cannot_have_mark_nothing():
    assert [fits(mark, np.dtype("uint8")) for mark in (-9999, 0.5, 256, np.inf, np.nan, 0, 255)] == [False] * 5 + [
        True
    ] * 2
    assert fits(np.inf, np.dtype("float32")) and not fits(np.nan, np.dtype("float32"))
