r"""Tar files of the webdataset layout: pictures, labels and parts that are read from them."""

import json
import os
import tarfile
import time

import pytest
from shard_parts import contents, pairs, png, write

from scoregen import parallel
from scoregen.data import Shards, tar_cache
from scoregen.errors import UserError


@pytest.fixture
def shards(tmp_path):
    r"""Two files of 6 and 5 pictures of the greys 0 .. 10, of class grey mod 3."""
    write(tmp_path / "0.tar", pairs(range(6)))
    write(tmp_path / "in" / "1.tar", pairs(range(6, 11)))
    return tmp_path


def test_every_picture_comes_with_its_own_class_from_every_file(shards):
    source = Shards(str(shards))
    assert contents(source) == {v: v % 3 for v in range(11)}
    assert (source.shape, source.num_classes, len(source.train), len(source.test)) == ((3, 4, 6), 3, 10, 1)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_offsets_are_those_of_tarfile_for_every_format_and_long_names(tmp_path, form):
    long = "x" * 90 + "/" + "y" * (60 if form == tarfile.USTAR_FORMAT else 150)
    names = [f"{long}{v}.png" for v in range(4)] + ["ü.png"]
    path = write(tmp_path / "a.tar", [(name, png(v)) for v, name in enumerate(names)], form)
    index = Shards(str(path)).index
    with tarfile.open(path) as archive:
        expected = [(member.offset_data, member.size) for member in archive]
    assert list(zip(index.offset.tolist(), index.size.tolist(), strict=True)) == expected


def test_members_of_a_sample_need_not_be_neighbours(tmp_path):
    members = sorted(pairs(range(7)), key=lambda pair: pair[0].endswith("png"))
    assert contents(Shards(str(write(tmp_path / "a.tar", members)))) == {v: v % 3 for v in range(7)}


@pytest.mark.parametrize(
    ("label", "given", "names", "expected"),
    [
        (lambda v: [], {}, None, dict.fromkeys(range(4))),
        (lambda v: [("txt", "ab"[v % 2])], {"label": "txt"}, ("a", "b"), {v: v % 2 for v in range(4)}),
        (lambda v: [("txt", "ba"[v % 2])], {"label": "txt"}, ("a", "b"), {v: 1 - v % 2 for v in range(4)}),
        (lambda v: [("json", json.dumps({"a": {"b": v}}))], {"label": "json.a.b"}, None, {v: v for v in range(4)}),
        (lambda v: [("json", json.dumps({"k": "n" + "o" * v}))], {"label": "json.k"}, None, {v: v for v in range(4)}),
    ],
    ids=["none", "names", "names out of order", "field", "names in JSON"],
)
def test_labels_are_numbers_or_names_of_a_member_or_field(tmp_path, label, given, names, expected):
    source = Shards(str(write(tmp_path / "a.tar", pairs(range(4), label))), **given)
    assert contents(source) == expected
    assert names is None or source.class_names == names


@pytest.mark.parametrize("form", ["{}/a.tar", "{}-0000.tar", "{}_2024/x/b.tar"])
def test_names_of_files_or_folders_say_the_part(tmp_path, form):
    for k, name in enumerate(("train", "val", "test")):
        write(tmp_path / form.format(name), pairs(range(4 * k, 4 * k + 4)))
    source = Shards(str(tmp_path))
    found = [sorted(part[:][0][:, 0, 0, 0].tolist()) for part in (source.train, source.validation, source.test)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(Shards(str(tmp_path), test="all").test) == 12
    test = next(tmp_path.glob(form.format("test")))
    assert len(Shards(str(test), test="all").test) == 4


def test_files_of_no_part_beside_those_of_one_are_refused(tmp_path):
    write(tmp_path / "photos-0.tar", pairs(range(4)))
    write(tmp_path / "test-0.tar", pairs(range(4)))
    with pytest.raises(UserError, match=r"got 'test-0.tar' and 'photos-0.tar'. Rename them, or give data.test=PATH"):
        Shards(str(tmp_path))


def test_texts_are_captions(tmp_path):
    path = write(tmp_path / "a.tar", pairs(range(4), lambda v: [("txt", f"{v % 2}")]))
    source = Shards(str(path), caption="txt", size=2)
    assert source.num_classes is None and source.shape == (3, 2, 2)
    assert {v: source.captions[k] for v, k in contents(source).items()} == {0: "0", 1: "1", 2: "0", 3: "1"}


def test_what_is_left_out_is_said(tmp_path, capsys):
    parallel.say_once.cache_clear()
    extra = [("d/._0000.png", b"x"), ("d/a.npy", b"x"), ("d/b.cls", b"1")]
    write(tmp_path / "a.tar", [*pairs(range(3)), *extra])
    assert len(contents(Shards(str(tmp_path)))) == 3
    assert "are left out: 1 of .npy, 1 of .cls without a picture." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"label": "json"}, "data.label: must be the ending of a member"),
        ({"label": "cls.a"}, "data.label: must be the ending of a member"),
        ({"label": "cls", "caption": "txt"}, "a class or a text, got label=cls and caption=txt"),
        ({"label": "json.a"}, "have no .json"),
        ({"caption": "txt"}, "have no .txt"),
        ({"image": "jpg"}, r"no pictures \(jpg\)"),
        ({"size": 0}, "size must be a whole number"),
    ],
)
def test_bad_arguments_are_named(shards, given, text):
    with pytest.raises(ValueError, match=text):
        Shards(str(shards), **given)


def test_the_fingerprint_moves_with_the_data_not_with_the_folder(shards, tmp_path_factory):
    before = Shards(str(shards)).train.fingerprint()
    moved = tmp_path_factory.mktemp("moved") / "b"
    os.rename(shards, moved)
    assert Shards(str(moved)).train.fingerprint() == before
    write(moved / "0.tar", pairs([0, 1, 2, 3, 4, 99]))
    assert Shards(str(moved)).train.fingerprint() != before


def test_more_files_than_may_be_open_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("scoregen.data.shards._MOST_OPEN", 2)
    for v in range(9):
        write(tmp_path / f"{v}.tar", pairs([v]))
    source = Shards(str(tmp_path))
    assert contents(source) == {v: v % 3 for v in range(9)} and len(source._pictures._open) == 2


def test_the_index_of_many_samples_is_kept_until_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("scoregen.data.tar_cache._MANY", 3)
    path, made = write(tmp_path / "a.tar", pairs(range(6))), []
    long_ago = time.time_ns() - 10**12
    os.utime(path, ns=(long_ago, long_ago))
    make = tar_cache.make_index
    monkeypatch.setattr(tar_cache, "make_index", lambda *given: made.append(1) or make(*given))

    def found():
        return contents(Shards(str(path)))

    assert found() == found() == {v: v % 3 for v in range(6)} and len(made) == 1
    (kept,) = (tmp_path / "cache" / "scoregen" / "shards").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(good[: len(good) // 2])
    assert len(found()) == 6 and len(made) == 2  # a damaged index is made again
    write(path, pairs(range(10, 16)))  # of the same size
    os.utime(path, ns=(long_ago, long_ago))  # and time
    assert found() == {v: v % 3 for v in range(10, 16)} and len(made) == 3
    os.utime(path)
    assert len(found()) == 6 and len(made) == 4
