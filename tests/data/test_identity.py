r"""The fingerprint of files: their names and content, not where they lie; and what it says of a change."""

import os
import shutil

import numpy as np
import pytest

from scoregen.data import identity
from scoregen.errors import UserError


def write(folder, count=6, size=100):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        (folder / f"{k:05d}.bin").write_bytes(bytes([k % 251]) * size)
    return folder


def entries(folder):
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.bin"))
    return dict(identity.of_files(folder, names, len(names)))


def test_a_folder_that_is_moved_or_copied_is_the_same(tmp_path):
    before = entries(write(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    (tmp_path / "a").rename(tmp_path / "b")
    for file in (tmp_path / "b").iterdir():
        os.utime(file, (0, 0))
    assert entries(tmp_path / "b") == entries(tmp_path / "c") == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: (f / "00002.bin").write_bytes(b"x" * 100), "of 6 files, 1 changed (first: '00002.bin')"),
        (lambda f: (f / "00002.bin").write_bytes(b"x"), "of 6 files, 1 changed (first: '00002.bin')"),
        (lambda f: (f / "new.bin").write_bytes(b""), "of 6 files, 1 new (first: 'new.bin')"),
        (lambda f: (f / "00004.bin").unlink(), "of 6 files, 1 missing (first: '00004.bin')"),
        (lambda f: (f / "00000.bin").rename(f / "z.bin"), "1 new (first: 'z.bin'), 1 missing (first: '00000.bin')"),
    ],
    ids=["content", "size", "new", "missing", "renamed"],
)
def test_a_change_changes_the_fingerprint_and_is_named(tmp_path, change, text):
    before = entries(write(tmp_path))
    change(tmp_path)
    now = entries(tmp_path)
    assert identity.fingerprint(now.items()) != identity.fingerprint(before.items())
    assert text in identity.changes(before, now.items())


def test_what_it_cannot_see_is_as_stated(tmp_path):
    r"""Of a file of 20 MB: the first and last block are seen, a byte between two blocks is not."""
    content = np.zeros(20_000_000, np.uint8)
    (tmp_path / "a.bin").write_bytes(content.tobytes())
    before = entries(tmp_path)
    for place, seen in ((0, True), (len(content) - 1, True), (5000, False)):
        changed = content.copy()
        changed[place] = 1
        (tmp_path / "a.bin").write_bytes(changed.tobytes())
        assert (entries(tmp_path) != before) is seen


def test_names_and_sizes_of_all_files_are_seen_and_the_content_of_512(tmp_path):
    found = entries(write(tmp_path, 1000, size=1))
    assert len(found) == 1000 and sum(" " in entry for entry in found.values()) == 512


def test_entries_are_kept_beside_a_record(tmp_path):
    found = entries(write(tmp_path / "a")) | {"caf\u00e9\n\udce9.png": "3"}
    identity.write_entries(tmp_path, found.items())
    assert identity.read_entries(tmp_path) == found
    (tmp_path / identity.ENTRIES).write_bytes(b"torn")
    assert identity.read_entries(tmp_path) == identity.read_entries(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"range": [1, 0]}, "'dataset.range' of 'a' must be two numbers"),
        ({"range": ["0", 1]}, "'dataset.range'"),
        ({"range": [float("nan"), 1]}, "'dataset.range'"),
        ({"range": [float("-inf"), 1]}, "'dataset.range'"),
        ({"classes": "cat"}, "'dataset.classes' of 'a' must be names"),
        ({"classes": [["cat"]]}, "'dataset.classes'"),
        ("all", "'dataset.range'"),
    ],
    ids=str,
)
def test_what_a_checkpoint_from_elsewhere_says_of_its_data_is_checked(facts, text):
    with pytest.raises(UserError, match=text):
        identity.known({"dataset": facts}, "'a'")


def test_a_checkpoint_that_says_nothing_of_its_data_is_of_images():
    assert identity.known({}, "") == identity.Known((0.0, 1.0), None)
    said = {"dataset": {"range": [0, float("inf")], "classes": ["cat"]}}
    assert identity.known(said, "") == identity.Known((0.0, float("inf")), ("cat",))
