r"""Columns whose guess would be wrong: each is one message, or told; what is only unusual is neither."""

import datetime
import decimal
import re

import numpy as np
import pytest

from scoregen.errors import UserError

pd = pytest.importorskip("pandas")

from scoregen.tables import Schema, read_table  # noqa: E402

N = 40
X = np.random.default_rng(0).lognormal(3, 1, N).round(2)
X[1] = X[0]  # so that not all texts differ


def guessed(values, name: str = "b", kinds=None) -> Schema:
    return Schema.guess(pd.DataFrame({"a": np.arange(N) ** 2, name: values}), kinds)


REFUSED = {
    "decimal comma": (
        [f"{x:.2f}".replace(".", ",") for x in X],
        "look like numbers, '.*,.*data.decimal=.*decimal=, thousands=",
    ),
    "thousands": ([f"{997 * k % 9000:,}" for k in range(N)], "look like numbers, '.,"),
    "thin spaces": ([f"{1000 + k % 30:,}".replace(",", "\u202f") for k in range(N)], "look like numbers"),
    "money": ([f"${k % 30}.50" for k in range(N)], "look like numbers, '[$]0.50'"),
    "percent": ([f"{k % 30} %" for k in range(N)], "look like numbers, '0 %'"),
    "a word": ([*map(str, X[1:]), "?"], r"1 of 40 values are no numbers, and the others are \(first: '[?]'\). If they"),
    "large": ([str(2**70 + k % 30) for k in range(N)], "whole numbers beyond 64 bits, 11805"),
    "German dates": (
        [f"{1 + k % 28}.2.2020" for k in range(N)],
        "look like dates or times, '1.2.2020'.*data.date_format='%d.%m.%Y'",
    ),
    "American dates": ([f"2/{1 + k % 28}/20" for k in range(N)], "look like dates or times"),
    "no such day": ([f"2021-02-{1 + k % 31:02d}" for k in range(N)], "look like dates or times"),
    "months": ([f"{2000 + k % 20}-11" for k in range(N)], "look like dates or times"),
    "English dates": ([f"{1 + k % 28} Jan 2020" for k in range(N)], "look like dates or times"),
    "times": ([f"{k % 24}:30" for k in range(N)], "look like dates or times, '0:30'"),
    "Decimal": ([decimal.Decimal(k % 30) / 4 for k in range(N)], "values of type Decimal.*astype.float.*drop"),
    "date": ([datetime.date(2020, 1, 1 + k % 28) for k in range(N)], "values of type date.*pandas.to_datetime"),
    "Timedelta": (pd.to_timedelta(np.arange(N) % 30, "s"), "values of type Timedelta.*total_seconds"),
    "dict": ([{"x": 1}] * N, "values of type dict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_category_is_refused_with_what_to_do(case):
    values, text = REFUSED[case]
    with pytest.raises(UserError, match=f"^data.columns.b: .*{text}"):
        guessed(values)


TOLD = {
    "index": (range(N), "numbers the rows from 0 to 39 in their order, as an index does.*data.columns.b=drop"),
    "dates": ([20200101 + 100 * (k % 12) + k % 28 for k in range(N)], "look like dates, 20200101"),
    "mark": (np.where(np.arange(N) % 9, X, -999), "-999 occurs 5 times, far from the other values"),
    "spaces": (["x ", "x", "y", "z"] * 10, "'x ' and 'x' are two categories"),
    "capitals": (["Yes", "no", "yes", "no"] * 10, "'Yes' and 'yes' are two categories"),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_may_be_meant_otherwise_is_told_unless_the_kind_is_given(case, capsys):
    values, text = TOLD[case]
    kind = guessed(values).columns[1].kind
    found = capsys.readouterr().err
    assert found.count("\n") == 1 and pd.Series([found]).str.contains(f"^data.columns.b: .*{text}").all()
    guessed(values, kinds={"b": kind})
    assert not capsys.readouterr().err


RIGHT = {
    "codes": ([f"{k % 30:05d}" for k in range(N)], "category"),
    "ages": ([f"{k}0-{k}9" for k in range(8)] * 5, "category"),
    "sizes": (["36", "38", "40", "XL"] * 10, "category"),
    "names with digits": ([f"n{k % 30}" for k in range(N)], "category"),
    "negative": (X - 100, "real"),
    "the mark in range": (np.where(np.arange(N) % 9, 100 * (X - 20), -999), "real"),
    "years": (1960 + np.arange(N) % 30, "integer"),
    "flags": (["true", "false"] * 20, "category"),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_only_unusual_is_taken_without_a_word(case, capsys):
    values, kind = RIGHT[case]
    assert guessed(values).columns[1].kind == kind and not capsys.readouterr().err


def test_a_remedy_can_be_typed_whatever_the_name_of_the_column(capsys):
    guessed(range(N), "Unnamed: 0")
    assert """leave it out: 'data.columns={"Unnamed: 0": drop}'.""" in capsys.readouterr().err
    with pytest.raises(UserError, match=re.escape("""give 'data.columns={"my price": category}'""")):
        guessed(REFUSED["money"][0], "my price")


FILES = {
    "no names": (b"1.5,2\n2.5,3\n", "the first line of .* holds numbers .1.5, 2., .*Add a line of names"),
    "semicolons and commas": (b"a;b\n1,5;2\n2,5;3\n", "has one column, 'a;b'.* give data.separator=';'"),
    "latin-1": ("a,\xe9\n1,2\n3,4\n".encode("latin-1"), "is no text in utf-8 .*Give data.encoding=latin-1"),
    "utf-16": ("a,b\n1,2\n3,4\n".encode("utf-16"), "is no text in utf-8 .*Give data.encoding=utf-16"),
    "index": (b",a\n3,1.5\n7,2.5\n", "got ''. Name each column; an index that pandas wrote .*index=False"),
    "a row as names": (
        b"1.5,cat,2021-01-05\n2.5,cat,2021-01-06\n",
        "fits the rows below it .1.5, cat, 2021.*Add a line",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_another_form_is_refused_with_what_to_do(case, tmp_path):
    content, text = FILES[case]
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=text):
        read_table(tmp_path / "a.csv")


def test_rows_in_a_quotation_that_is_not_closed_are_told(tmp_path, capsys):
    (tmp_path / "a.csv").write_text('a,b\n1,"x\n2,y\n3,"z\n')
    assert len(read_table(tmp_path / "a.csv")[0]) < 3
    assert "1 cells hold line breaks and separators (first: 'x\\n2,y\\n3,z'). If they are rows, a" in (
        capsys.readouterr().err
    )


def test_an_index_that_a_file_keeps_apart_is_told(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"a": X}, index=pd.Index(range(N, 0, -1), name="key")).to_parquet(tmp_path / "a.parquet")
    assert list(read_table(tmp_path / "a.parquet")[0]) == ["a"]
    assert "the index of" in (text := capsys.readouterr().err) and "key, is left out" in text


def test_columns_without_a_name_that_say_nothing_are_left_out_and_told(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(",a,b,\n0,1.5,x,\n1,2.5,y,\n")
    assert list(read_table(tmp_path / "a.csv")[0]) == ["a", "b"]
    found = capsys.readouterr().err
    assert "the first column of" in found and "numbers the rows" in found and "column 4 of" in found


def test_rows_with_too_few_cells_are_told(tmp_path, capsys):
    (tmp_path / "a.csv").write_text('a,b,c\n1,2,3\n4,"x\ny"\n5,6,\n7\n')
    assert read_table(tmp_path / "a.csv")[0].isna().sum().sum() == 4
    assert "2 rows of" in (found := capsys.readouterr().err) and "the 3 names (first: row 2, with 2)" in found


def test_numbers_as_categories_of_pandas_are_no_texts():
    assert guessed(pd.Series(X).astype("category")).columns[1].kind == "category"
