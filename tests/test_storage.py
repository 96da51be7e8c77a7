r"""Files are whole or absent; a folder of one job is not taken for another's."""

import json
import math
from pathlib import Path

import pytest

from scoregen import storage
from scoregen.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "sub" / "a.txt"
    storage.write_text(path, "old")

    def fails(file):
        file.write(b"ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        storage.write_atomically(path, fails)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_folder_takes_the_place_of_another(tmp_path):
    for text in ("one", "two"):
        partial = tmp_path / ".partial"
        partial.mkdir()
        (partial / text).write_text(text)
        storage.put_folder(partial, tmp_path / "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]
    assert [p.name for p in (tmp_path / "whole").iterdir()] == ["two"]


def test_a_record_survives_json(tmp_path):
    record = {"a": (1, 2.5), "b": {"c": math.inf, "p": Path("x")}, "n": None}
    storage.write_record(tmp_path, record)
    assert json.loads((tmp_path / "job.json").read_text()) == {"a": [1, 2.5], "b": {"c": "inf", "p": "x"}, "n": None}
    storage.claim(tmp_path, record)


@pytest.mark.parametrize(
    "old, new, found",
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ("a.c", 2, 3)),
        ({"a": None}, {}, ("a", None, None)),
        ({}, {"a": None}, ("a", None, None)),
        ({"a": {}}, {"a": {"b": 1}}, ("a.b", None, 1)),
        ({"a": [1, 2]}, {"a": (1, 2)}, None),
    ],
    ids=["same", "nested", "lost", "new", "empty", "tuple"],
)
def test_the_first_difference_of_two_records(old, new, found):
    assert storage.difference(old, new) == found


def test_a_folder_of_another_job_is_refused(tmp_path):
    storage.claim(tmp_path / "new", {"seed": 1})
    storage.write_record(tmp_path, {"seed": 1})
    with pytest.raises(UserError, match=r"out: '.*' holds other results: seed was 1, now 2. Choose another out."):
        storage.claim(tmp_path, {"seed": 2})
    (tmp_path / "job.json").write_text("[]")
    with pytest.raises(UserError, match="is damaged: it must hold a mapping"):
        storage.claim(tmp_path, {"seed": 1})
    (tmp_path / "job.json").unlink()
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"contains 'images' that this job did not write \(job.json is missing\)"):
        storage.claim(tmp_path, {"seed": 1}, ["images", "parts"])
