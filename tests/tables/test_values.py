r"""Values of columns that were cut, wrapped around or misread without a word: exact now, told, or one message."""

import datetime

import numpy as np
import pytest

from scoregen.errors import UserError
from scoregen.parallel import say_once

pd = pytest.importorskip("pandas")

from scoregen.tables import Schema, read_table  # noqa: E402

N = 40
Y = np.arange(N) ** 2


def guessed(values, kinds=None) -> Schema:
    return Schema.guess(pd.DataFrame({"a": Y, "b": values}), kinds)


@pytest.mark.parametrize("gap", ["", "\n,1.5"], ids=["whole", "with a missing cell"])
def test_whole_numbers_beyond_63_bits_keep_their_sign(tmp_path, gap):
    (tmp_path / "a.csv").write_text("b,x\n18446744073709551615,1.5\n5,2.5" + gap)
    values = read_table(tmp_path / "a.csv")[0]["b"].dropna()
    assert [int(value) for value in values] == [2**64 - 1, 5]


def test_dates_that_nanoseconds_cannot_hold_are_refused(tmp_path):
    r"""They came out as dates of the 19th century."""
    days = [f"2024-10-{1 + k % 28:02d}" for k in range(N)]
    for other in ("1066-10-14", "9999-12-31"):
        with pytest.raises(UserError, match=f"1 of 40 dates lie outside the years 1678 to 2261 .first: {other}"):
            guessed([other, *days[1:]])
    schema = guessed(days)
    with pytest.raises(UserError, match=r"condition.b: 1 of 1 dates lie outside the years"):
        schema.known_row({"b": "3024-02-01"})
    far = schema.encode(pd.DataFrame({"a": Y, "b": days}))
    far[0, 1], far[1, 1] = 1e9, -1e9
    assert schema.decode(far)["b"].tolist()[:2] == ["2261-12-31", "1678-01-01"]


@pytest.mark.parametrize("values", [[None, *range(1, N)], [None, *np.linspace(0, 1, N - 1)]], ids=["whole", "real"])
def test_numbers_beside_none_are_numbers(values, capsys):
    r"""As a database gives them; they became a category of each number."""
    say_once.cache_clear()
    schema = guessed(pd.Series(values, dtype=object))
    assert schema.columns[1].kind in ("integer", "real") and schema.columns[1].missing == 1
    assert "its numbers are held as objects, and become float64" in capsys.readouterr().err
    encoded = schema.encode(pd.DataFrame({"a": Y, "b": pd.Series(values, dtype=object)}))
    assert encoded.isnan()[:, 1].tolist() == [True] + [False] * (N - 1)


def test_names_of_numpy_are_plain_numbers():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(N, 2)), columns=np.array([0, 1]))
    assert [type(column.name) for column in Schema.guess(frame, {1: "real"}).columns] == [int, int]


def test_positive_numbers_in_a_narrow_range_keep_their_digits(capsys):
    values = 1e9 + np.random.default_rng(0).normal(size=N).round(2)
    schema = guessed(values)
    assert schema.columns[1].kind == "real"
    frame = pd.DataFrame({"a": Y, "b": values})
    np.testing.assert_allclose(schema.decode(schema.encode(frame))["b"], values, rtol=0, atol=1e-6)
    guessed(values, {"b": "positive"})
    assert "a logarithm of 7 digits loses most of that. Give data.columns.b=real" in capsys.readouterr().err


def test_texts_that_differ_in_most_rows_are_told(capsys):
    assert guessed([f"n{max(k, 1)}" for k in range(N)]).columns[1].kind == "category"
    assert "39 of 40 texts are different, as names are" in capsys.readouterr().err


REFUSED = {
    "lists among texts": (["x"] * (N - 1) + [["y"]], "values of type list"),
    "numbers with spaces": ([f" {k}.5 " for k in range(N)], "numbers with spaces or marks around them, ' 0.5 '"),
    "numbers in marks": ([f"'{k}.5'" for k in range(N)], "numbers with spaces or marks around them"),
    "times of Python": ([datetime.datetime(2024, 1, 1, k % 24) for k in range(N)], "pandas.to_datetime"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_kind_can_have_is_one_message(name):
    values, text = REFUSED[name]
    with pytest.raises(UserError, match=text):
        guessed(pd.Series(values, dtype=object))


def test_a_type_that_samples_cannot_get_is_refused_before_the_training():
    pa = pytest.importorskip("pyarrow")
    kinds = {pa.dictionary(pa.int32(), pa.string()): "category", pa.decimal128(9, 2): "float", pa.list_(pa.int8()): ""}
    for kind, made in kinds.items():
        plain = ["x", "y"] * (N // 2) if made == "category" else [1] * N if made else [[1]] * N
        with pytest.raises(UserError, match=rf"which samples cannot have. Make it .*astype\('?{made}"):
            guessed(pd.Series(plain, dtype=pd.ArrowDtype(kind)))


def test_a_part_of_a_whole_number_is_refused_where_the_table_has_none():
    schema = guessed(Y)
    with pytest.raises(
        UserError, match=r"b: an integer column must have whole numbers, got 1 that are not .first: 1.5"
    ):
        schema.encode(pd.DataFrame({"a": [1, 2], "b": [1.5, 2.0]}))


CONDITIONS = {
    "a number for a date": ({"d": 5}, r"condition.d: must be a date as 2024-01-31"),
    "a zone": ({"d": pd.Timestamp("2024-02-01", tz="UTC")}, r"The table has dates without a time zone"),
    "pandas' missing": ({"a": pd.NA}, r"condition.a: must be a value, got <NA>"),
    "no mapping": ("cat", r"condition: must be values of columns, .*got 'cat'"),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_that_means_nothing_is_one_message(name):
    given, text = CONDITIONS[name]
    days = pd.date_range("2024-01-01", periods=N)
    schema = Schema.guess(pd.DataFrame({"a": Y, "d": days, "k": "x"}))
    with pytest.raises(UserError, match=text):
        schema.known_row(given)


def test_the_value_of_a_constant_column_is_a_condition_that_holds():
    schema = Schema.guess(pd.DataFrame({"a": Y, "k": "x"}))
    row, frame = schema.known_row({"k": "x"})
    assert row.isnan().all() and frame["k"].tolist() == ["x"]
