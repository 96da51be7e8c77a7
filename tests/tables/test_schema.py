r"""Columns of tables: guessed types, vectors and back, files as they were; each mistake is one message."""

import numpy as np
import pytest
import torch

from scoregen.errors import UserError

pd = pytest.importorskip("pandas")

from scoregen.tables import Schema, read_table, write_table  # noqa: E402

N = 200


def mixed(seed: int = 0):
    r"""A table with a column of each kind, and cells that a text file must quote."""
    draws = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            'said, "so"': draws.choice(['a "b"', "c,d", "e\nf"], N),
            "price": (draws.lognormal(0, 1, N) + 1).round(2),
            "rain": np.where(draws.random(N) < 0.3, 0, (draws.gamma(2, 1, N) + 0.001).round(3)),
            "children": draws.poisson(20, N),
            "far": draws.integers(2**60, 2**60 + 1000, N),
            "ok": draws.random(N) < 0.5,
            "zip": [f"{k:05d}" for k in draws.integers(0, 30, N)],
            "const": 7,
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(draws.integers(0, 500, N), "D"),
            "at": pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(draws.integers(0, 90000, N), "s"),
            "t": draws.normal(0, 3, N).astype(np.float32).astype(float),
        }
    )


KINDS = {
    'said, "so"': "category",
    "price": "positive",
    "rain": "zero_positive",
    "children": "integer",
    "far": "integer",
    "ok": "category",
    "zip": "category",
    "const": "constant",
    "day": "date",
    "at": "date",
    "t": "real",
}


def test_kinds_are_guessed_by_the_values():
    assert {c.name: c.kind for c in Schema.guess(mixed()).columns} == KINDS


def test_a_frame_comes_back_with_its_values_types_and_order():
    frame = mixed()
    schema = Schema.guess(frame)
    again = schema.decode(schema.encode(frame))
    assert list(again.columns) == list(frame.columns) and (again.dtypes == frame.dtypes).all()
    exact = [name for name in frame if name not in ("t", "at")]
    pd.testing.assert_frame_equal(again[exact], frame[exact])
    np.testing.assert_allclose(again["t"], frame["t"], rtol=1e-6)
    assert (again["at"] - frame["at"]).abs().max() <= pd.Timedelta("1s")  # a day in float32 has 0.005 s


def test_a_text_file_comes_back_byte_for_byte(tmp_path):
    frame = mixed().drop(columns="at")
    frame["fixed"] = [f"{k / 7:.3f}" for k in range(1, N + 1)]
    frame["when"] = [f"2024-01-{1 + k % 28:02d} 12:{k % 60:02d}" for k in range(N)]
    frame.to_csv(tmp_path / "a.csv", index=False)
    read, forms = read_table(tmp_path / "a.csv")
    schema = Schema.guess(read, None, forms)
    assert {c.name: c.kind for c in schema.columns} == {k: v for k, v in KINDS.items() if k != "at"} | {
        "fixed": "positive",
        "when": "date",
    }
    same = [name for name in read if name != "t"]
    write_table(schema.decode(schema.encode(read))[same], tmp_path / "b.csv", schema)
    frame[same].to_csv(tmp_path / "c.csv", index=False)
    assert (tmp_path / "b.csv").read_text() == (tmp_path / "c.csv").read_text()


def test_missing_cells_are_nan_in_every_coordinate_of_their_column():
    frame = mixed()
    frame["children"] = frame["children"].astype("Int64")
    for name in ("price", "rain", "children", 'said, "so"'):
        frame.loc[3, name] = None
    schema = Schema.guess(frame)
    x, places = schema.encode(frame), schema.layout.places(schema.columns)
    lost = [
        p
        for name in ("price", "rain", "children", 'said, "so"')
        for p in np.r_[tuple(q for q in places[name] if q is not None)]
    ]
    assert x[3].isnan().nonzero().flatten().tolist() == sorted(lost)
    assert not x[torch.arange(N) != 3].isnan().any()


def test_the_number_of_a_zero_is_a_draw_of_the_others():
    frame = mixed()[["rain"]]
    schema = Schema.guess(frame)
    x, zero = schema.encode(frame), torch.tensor((frame["rain"] == 0).tolist())
    assert torch.equal(x[:, 1] == 1, zero)
    assert set(x[zero, 0].tolist()) <= set(x[~zero, 0].tolist())


def test_a_schema_is_described_by_plain_data():
    schema = Schema.guess(mixed())
    assert Schema.of(schema.plain()) == schema


def test_types_of_pandas_come_back():
    frame = pd.DataFrame(
        {
            "grade": pd.Categorical(["low", "high"] * 10, ["low", "mid", "high"], ordered=True),
            "flag": pd.array([True, None] * 10, dtype="boolean"),
            "small": pd.Series(range(20), dtype="uint8"),
            "half": pd.Series(np.linspace(-1, 1, 20), dtype="float32"),
            3: np.arange(20) % 2,
        }
    )
    schema = Schema.guess(frame)
    again = schema.decode(schema.encode(frame).nan_to_num(0.0))
    assert (again.dtypes == frame.dtypes).all() and list(again.columns) == list(frame.columns)
    assert list(again["grade"].cat.categories) == ["low", "mid", "high"]


def test_whole_numbers_of_64_bits_are_exact():
    frame = pd.DataFrame({"key": np.array([2**62 + 1, 2**62 + 3, 2**62 + 1000] + [2**62 + 7 + k for k in range(20)])})
    schema = Schema.guess(frame)
    assert schema.decode(schema.encode(frame))["key"].tolist() == frame["key"].tolist()


def test_a_positive_number_is_never_rounded_to_zero():
    schema = Schema.guess(pd.DataFrame({"price": np.arange(1, 21) / 100 + 0.01}))
    assert schema.decode(torch.tensor([[1e-6], [0.004]]))["price"].tolist() == [0.01, 0.01]


def test_many_categories_are_taken():
    frame = pd.DataFrame({"who": [f"n{k % 5000}" for k in range(10_000)]})
    schema = Schema.guess(frame)
    x = schema.encode(frame.head(3))
    assert x.shape == (3, 5000) and schema.decode(x)["who"].tolist() == ["n0", "n1", "n2"]


WRONG = {
    "one row": ({"a": [1.0]}, None, "data: a table must have at least 2 rows, got 1"),
    "no row": ({"a": []}, None, "at least 2 rows, got 0"),
    "all missing": ({"a": [1.0, 2.0], "b": [None, None]}, None, "data.columns.b: the column has no value in 2 rows"),
    "infinite": ({"a": [1.0, np.inf, 3.0]}, None, "data.columns.a: 1 of 3 values are infinite"),
    "constant": ({"a": [1, 1]}, None, "data: no column of the table varies"),
    "negative": ({"a": [1.0, -2.0, 3.0]}, {"a": "positive"}, "values > 0, got 1 of 3 .*-2.* Give data.columns.a=real"),
    "zero": ({"a": [1.0, 0.0, 3.0]}, {"a": "positive"}, "Give data.columns.a=zero_positive"),
    "no zero": ({"a": [1.0, 2.0]}, {"a": "zero_positive"}, "got 0 zeros of 2. Give data.columns.a=positive"),
    "broken": ({"a": [1.0, 2.5, 3.0]}, {"a": "integer"}, "must have whole numbers, got 2.5"),
    "text": ({"a": ["x", "y", "x"]}, {"a": "real"}, "values that are no numbers, 'x'. Give data.columns.a=category"),
    "no date": ({"a": [1, 2, 3]}, {"a": "date"}, "values that are no dates"),
    "no column": ({"price": [1, 2, 3]}, {"prise": "real"}, "no such column. Did you mean 'price'?"),
    "no kind": ({"a": [1, 2, 3]}, {"a": "positiv"}, "no kind of column 'positiv'. Did you mean 'positive'?"),
    "names": ({"a": [f"n{k}" for k in range(30)], "b": range(30)}, None, "all 30 texts .* data.columns.a=drop"),
    "lists": ({"a": [[1], [2], [3]]}, None, "values of type list"),
    "tiny": ({"a": [1e-300, 1.0, 2.0]}, None, "Give them in another unit"),
    "complex": ({"a": [1j, 2.0, 3.0]}, None, "complex numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_column_that_cannot_be_used_is_one_message(name):
    data, columns, message = WRONG[name]
    with pytest.raises(UserError, match=message):
        Schema.guess(pd.DataFrame(data), columns)


def test_names_that_occur_twice_are_refused(tmp_path):
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    with pytest.raises(UserError, match="two columns 'a'"):
        Schema.guess(frame)
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match="two columns 'a'"):
        read_table(tmp_path / "a.csv")


FILES = {
    "empty.csv": ("", "is empty"),
    "names.csv": ("a,b\n", "has names of columns and no rows"),
    "other.csv": ("a;b\n1;2\n", "give data.separator=';'"),
    "ragged.csv": ("a,b\n1,2\n1,2,3\n", "line 3 of .* has 3 cells"),
    "wrong.parquet": ("a,b\n", "cannot be read as a table"),
    "a.xls": ("a", "must be a .csv, .tsv, .txt .* or .parquet file"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_is_one_message(tmp_path, name):
    pytest.importorskip("pyarrow")
    text, message = FILES[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        read_table(tmp_path / f"no_{name}")


def test_conditions_are_values_that_a_column_can_have():
    schema = Schema.guess(mixed())
    given = {"ok": True, "rain": 0, "children": 18, "zip": "00003", "day": "2020-02-01", "const": 7}
    x, frame = schema.known_row(given)
    assert x.shape == (1, schema.layout.width) and frame["zip"].tolist() == ["00003"]
    number, hot = schema.layout.places(schema.columns)["rain"]
    assert x[0, number].isnan() and x[0, hot].tolist() == [1.0, 0.0]  # the number of a zero is free
    for wrong, message in {
        "colour": "condition.colour: the table has no such column",
        "zip": "condition.zip: the column has no category 'x'",
        "children": "condition.children: must be a value of a integer column|whole number",
        "price": "condition.price: .*values > 0|must be a value",
        "const": "condition.const: is 7 in all rows",
    }.items():
        with pytest.raises(UserError, match=message):
            schema.known_row({wrong: -1 if wrong == "price" else "x"})
