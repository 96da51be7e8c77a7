r"""Cells of text files: encodings, quotation marks and ends of lines come back; what cannot be read is one message."""

import gzip

import numpy as np
import pytest

from scoregen.errors import UserError

pd = pytest.importorskip("pandas")

from scoregen.data import TableFile  # noqa: E402
from scoregen.tables import Schema, TextForm, read_table, write_table  # noqa: E402
from scoregen.tables.cells import form_in  # noqa: E402

N = 40
G = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "Größe": [f"{x:.3f}" for x in 1000 * G.random(N)],
        "name": np.array(["Zoë", "NA", 'a "b", c'])[np.arange(N) % 3],
        "count": [str(k) for k in G.integers(0, 90, N)],
        "at": [f"2024-03-{1 + k % 28:02d} 12:30:00+02:00" for k in range(N)],
    }
)


def content(quoted: str = "", newline: str = "\n", separator: str = ",") -> str:
    r"""A file, written by other code than that of the package; `quoted`: "all", "texts" or none that need not be."""

    def cell(text: str, name: str) -> str:
        needs = any(mark in text for mark in (separator, '"'))
        always = quoted == "all" or (quoted == "texts" and name in ("name", "", "at"))
        return '"' + text.replace('"', '""') + '"' if needs or always else text

    lines = [[cell(name, "") for name in FRAME]]
    lines += [[cell(text, name) for name, text in zip(FRAME, row, strict=True)] for row in FRAME.values.tolist()]
    return "".join(separator.join(line) + newline for line in lines)


FILES = {
    "as usual": (content().encode(), {}),
    "the mark of UTF-8 and lines of Windows": (b"\xef\xbb\xbf" + content(newline="\r\n").encode(), {}),
    "all cells quoted": (content("all").encode(), {}),
    "texts quoted, as R does": (content("texts").encode(), {}),
    "latin-1": (content(separator=";").encode("latin-1"), {"encoding": "latin-1", "separator": ";"}),
    "UTF-16 with tabs": (content(separator="\t").encode("utf-16"), {"encoding": "utf-16", "separator": "\t"}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_comes_back_byte_for_byte(name, tmp_path):
    raw, options = FILES[name]
    (tmp_path / "a.csv").write_bytes(raw)
    source = TableFile(str(tmp_path / "a.csv"), keep_default_na=False, **options)
    assert [column.kind for column in source.schema.columns] == ["positive", "category", "integer", "date"]
    rows = source.schema.decode(source.schema.encode(source.frame))
    rows["Größe"] = source.frame["Größe"]  # float32 has 7 digits
    write_table(rows, tmp_path / "b.csv", source.schema)
    assert (tmp_path / "b.csv").read_bytes() == raw


def test_cells_of_a_file_that_are_known_stay_as_they_are(tmp_path):
    r"""Numbers in several ways of writing, and words for no value in a column of which nothing is made."""
    raw = 'a,b\n+1.50,NA\n2e0,"x"\n,NULL\n0.10,y\n'
    (tmp_path / "a.csv").write_text(raw)
    from scoregen.tables.files import read_texts

    cells = read_texts(tmp_path / "a.csv", TextForm(), "table")
    frame, _ = read_table(tmp_path / "a.csv")
    filled = frame.assign(a=frame["a"].fillna(7.0))
    own = cells.where(frame.notna() | filled.isna())
    write_table(filled, tmp_path / "b.csv", Schema(()), own)
    assert (tmp_path / "b.csv").read_text() == "a,b\n+1.50,NA\n2e0,x\n7.0,NULL\n0.10,y\n"


BROKEN = {
    "latin-1": ("Köln\n1.5\n".encode("latin-1"), "a.csv", "no text in utf-8 .* Give data.encoding=latin-1"),
    "UTF-16": ("Köln\n1.5\n".encode("utf-16"), "a.csv", "Give data.encoding=utf-16, which its first bytes say"),
    "not packed": (b"a,b\n1,2\n", "a.csv.gz", "cannot be unpacked .*Give it the ending .csv"),
    "damaged": (gzip.compress(b"a,b\n1,2\n")[:-12] + b"x" * 12, "a.csv.gz", "cannot be unpacked"),
    "a remark": (b"# of 2024\na,b\n1,2\n", "a.csv", "line 2 of .* has 2 cells, .* first line has 1: '# of 2024'"),
    "a line of Excel": (b"sep=;\na;b\n1;2\n", "a.csv", "first line of .* is 'sep=;'.*data.separator=';'"),
    "not closed": (b'a,b\n1,2\n3,"4\n5,6\n', "a.csv", "quotation mark of .* is not closed, about line 3"),
    "another ending": (b"a,b\n1,2\n", "a.csv.bak", "must be a .csv, .tsv, .txt"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_one_message(name, tmp_path):
    raw, file, text = BROKEN[name]
    (tmp_path / file).write_bytes(raw)
    with pytest.raises(UserError, match=text):
        read_table(tmp_path / file)


def test_no_such_encoding_is_refused():
    with pytest.raises(UserError, match=r"data.encoding: there is no encoding 'latin-99'. Usual ones are"):
        TextForm(encoding="latin-99")


def test_a_file_in_UTF_8_that_is_read_otherwise_is_told(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("town,x\nKöln,1.5\n")
    read_table(tmp_path / "a.csv", TextForm(encoding="latin-1"))
    assert "looks like UTF-8, and is read as latin-1" in capsys.readouterr().err


def test_words_of_a_category_that_count_as_no_value_are_told(tmp_path, capsys):
    (tmp_path / "land.csv").write_text("land,x\n" + "NA,1\nDE,NA\n" * 9)
    frame, _ = read_table(tmp_path / "land.csv")
    assert frame["land"].isna().sum() == 9
    told = capsys.readouterr().err
    assert "data.columns.land: 9 cells hold 'NA', which counts as no value" in told and "columns.x" not in told
    kept, _ = read_table(tmp_path / "land.csv", TextForm(keep_default_na=False))
    assert kept["land"].isna().sum() == 0


def test_an_empty_line_of_a_file_of_one_column_is_a_missing_cell(tmp_path):
    (tmp_path / "a.csv").write_text("\na\n1.5\n\n2.5\n\n\n")
    assert read_table(tmp_path / "a.csv")[0]["a"].fillna(0).tolist() == [1.5, 0, 2.5]


def test_dates_of_several_time_zones_become_utc_with_a_word(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("t\n" + "2024-01-01 12:00+01:00\n2024-07-01 12:00+02:00\n2024-07-02 12:00+02:00\n")
    frame, forms = read_table(tmp_path / "a.csv")
    schema = Schema.guess(frame, None, forms)
    assert "several time zones, and become UTC" in capsys.readouterr().err
    write_table(schema.decode(schema.encode(frame)), tmp_path / "b.csv", schema)
    assert (tmp_path / "b.csv").read_text().splitlines()[1:3] == ["2024-01-01 11:00Z", "2024-07-01 10:00Z"]


def test_a_condition_without_a_zone_is_of_the_zone_of_the_table():
    texts = [f"2024-03-{1 + k:02d} 12:30+02:00" for k in range(20)]
    schema = Schema.guess(pd.DataFrame({"t": texts, "x": np.arange(20) / 7}))
    rows = [schema.known_row({"t": text})[0][0, 0] for text in ("2024-03-05 12:30", "2024-03-05 12:30+02:00")]
    assert rows[0] == rows[1] == schema.known_row({"t": "2024-03-05 10:30Z"})[0][0, 0]


def test_the_form_of_what_is_no_text_file_is_as_it_is_given(tmp_path):
    assert form_in(tmp_path / "a.csv", TextForm()) == TextForm()
