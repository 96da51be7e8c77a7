r"""Text files of other forms (decimal commas, thousands, marks, dates) are read, and come back as they were."""

import numpy as np
import pytest

from scoregen.errors import UserError

pd = pytest.importorskip("pandas")

from scoregen.data import TableFile  # noqa: E402
from scoregen.tables import Schema, TextForm, read_table, write_table  # noqa: E402

N = 40
G = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "price [EUR]": G.lognormal(7, 1, N).round(2) + 1000.25,
        "change": G.normal(0, 2000, N).round(1),
        "count": G.integers(0, 5000, N),
        "kind": G.choice(["a;b", "c,d"], N),
        "day": pd.Timestamp("2021-01-01") + pd.to_timedelta(G.integers(0, 400, N), "D"),
    }
)


def cell(value, form: TextForm) -> str:
    if isinstance(value, pd.Timestamp):
        return value.strftime(form.date_format or "%Y-%m-%d")
    if isinstance(value, str):
        return f'"{value}"' if form.separator in value else value
    raise TypeError(value)


def file(path, form: TextForm):
    r"""A file in this form, written by other code than that of the package."""
    rows = [form.separator.join(FRAME.columns)]
    for row in FRAME.itertuples(index=False):
        price, change, *rest = row
        numbers = [f"{price:,.2f}", f"{change:,.1f}", f"{rest[0]:,}"]
        texts = [n.replace(",", "_").replace(".", form.decimal).replace("_", form.thousands or "") for n in numbers]
        texts = [f'"{t}"' if form.separator in t else t for t in texts]
        rows.append(form.separator.join([*texts, *(cell(value, form) for value in rest[1:])]))
    path.write_text("\n".join(rows) + "\n", newline="")
    return path


FORMS = {
    "German": TextForm(";", ",", ".", date_format="%d.%m.%Y"),
    "German without groups": TextForm(";", ","),
    "Swiss": TextForm(";", ".", "'"),
    "French": TextForm("\t", ",", " ", date_format="%d/%m/%Y"),
    "American": TextForm(",", ".", ",", date_format="%m/%d/%Y"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_read_as_its_numbers_and_comes_back_byte_for_byte(name, tmp_path):
    form = FORMS[name]
    frame, forms = read_table(file(tmp_path / "a.csv", form), form)
    pd.testing.assert_frame_equal(frame, FRAME, check_dtype=False)
    schema = Schema.guess(frame, None, forms, form)
    assert [column.kind for column in schema.columns] == ["positive", "real", "integer", "category", "date"]
    write_table(frame, tmp_path / "b.csv", schema)
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    again = Schema.of(schema.plain(), form.plain())
    assert again == schema


def test_samples_have_the_form_of_the_file(tmp_path):
    source = TableFile(str(file(tmp_path / "a.csv", FORMS["German"])), None, ";", ",", ".", date_format="%d.%m.%Y")
    assert source.identity()["text"] == FORMS["German"].plain()
    made = source.schema.decode(source.schema.encode(source.frame))
    write_table(made, tmp_path / "b.csv", source.schema)
    pd.testing.assert_frame_equal(read_table(tmp_path / "b.csv", source.text)[0], FRAME, check_dtype=False, rtol=1e-6)


def test_a_point_is_no_decimal_comma(tmp_path):
    (tmp_path / "a.csv").write_text("a;b\n" + "".join(f"{k}.5;{k},5\n" for k in range(N)))
    frame, _ = read_table(tmp_path / "a.csv", TextForm(";", ","))
    assert frame["b"].tolist() == [k + 0.5 for k in range(N)]
    with pytest.raises(UserError, match=r"data.columns.a: the texts of the column look like numbers, '0.5'"):
        Schema.guess(frame)


def test_marks_of_missing_values_are_missing(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1.5,x\n-,?\n2.5,y\nNA,x\n")
    for marks in ("-", ["-", "?"]):
        frame = TableFile(str(tmp_path / "a.csv"), na_values=marks, test="none").frame
        assert frame["a"].isna().tolist() == [False, True, False, True]
        assert frame["b"].isna().sum() == len(marks) - 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"decimal": ";"}, "data.decimal: must be '.' or ',', got ';'"),
        ({"thousands": "."}, "data.thousands: .* not the decimal point, got '.' with data.decimal='.'"),
        ({"separator": "; "}, "data.separator: must be one character, got '; '"),
        ({"date_format": "dd.mm"}, "data.date_format: must be a pattern of strftime with a day.*got 'dd.mm'"),
        ({"date_format": "%m/%d/%Y"}, "data.date_format: no column of .* has dates of the form %m/%d/%Y"),
        ({"na_values": {"a": 1}}, "data.na_values: must be texts"),
    ],
)
def test_what_is_no_form_is_refused(options, text, tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1.5,31.12.2020\n2.5,1.1.2021\n")
    with pytest.raises(UserError, match=text):
        TableFile(str(tmp_path / "a.csv"), **options)


@pytest.mark.parametrize("kind", ["object", "str", "string"])
def test_dates_of_a_frame_that_are_texts_come_back_as_texts(kind):
    texts = pd.Series([f"2021-0{1 + k % 9}-{10 + k % 19} 12:30" for k in range(N)], dtype=kind, name="day")
    frame = pd.DataFrame({"day": texts, "a": FRAME["change"]})
    frame.loc[3, "day"] = None
    schema = Schema.guess(frame)
    assert schema.columns[0].kind == "date"
    x = schema.encode(frame)
    assert x[3].isnan().tolist() == [True, False]
    again = schema.decode(x.nan_to_num(0.0))["day"]
    assert again.dtype == frame["day"].dtype and again.drop(3).tolist() == frame["day"].drop(3).tolist()
    assert schema.known_row({"day": "2021-02-03 12:30"})[1]["day"].tolist() == ["2021-02-03 12:30"]


def test_a_date_of_a_condition_is_not_guessed():
    for schema in (Schema.guess(FRAME), Schema.guess(FRAME.assign(day=FRAME["day"].dt.strftime("%Y-%m-%d")))):
        for text in ("01/02/2021", "31.12.2021"):
            with pytest.raises(UserError, match=r"condition.day: must be a date as 2024-01-31 .*got"):
                schema.known_row({"day": text})
    with pytest.raises(UserError, match=r"condition.change: must be a value, got nan"):
        Schema.guess(FRAME).known_row({"change": float("nan")})
