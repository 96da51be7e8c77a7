r"""Tar files of the webdataset layout."""

import io
import json
import os
import tarfile
import time
import tracemalloc

import pytest
import torch
from PIL import Image

from scoregen import parallel
from scoregen.data import Shards, tar_cache
from scoregen.errors import UserError


def png(value, mode="RGB", size=(6, 4)):
    file = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(file, "PNG")
    return file.getvalue()


def write(path, members, form=tarfile.GNU_FORMAT):
    r"""A tar file of (name, content) pairs; a TarInfo stands for itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = info.size or len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def pairs(values, label=lambda v: [("cls", str(v % 3))]):
    for v in values:
        yield f"d/{v:04}.png", png(v)
        for ending, text in label(v):
            yield f"d/{v:04}.{ending}", text.encode()


@pytest.fixture
def shards(tmp_path):
    r"""Two files of 6 and 5 pictures of the greys 0 .. 10, of class grey mod 3."""
    write(tmp_path / "0.tar", pairs(range(6)))
    write(tmp_path / "in" / "1.tar", pairs(range(6, 11)))
    return tmp_path


def contents(source):
    r"""{grey: label} over both parts."""
    found = {}
    for part in (source.train, source.test):
        x, label = part[:]
        assert x.dtype == torch.uint8 and bool((x == x[:, :1, :1, :1]).all())
        numbers = [None] * len(x) if label is None else label.tolist()
        found |= dict(zip(x[:, 0, 0, 0].tolist(), numbers, strict=True))
    return found


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


def test_a_file_without_a_mark_at_its_end_is_told(tmp_path, capsys):
    parallel.say_once.cache_clear()
    path = write(tmp_path / "a.tar", pairs(range(3), lambda v: []))
    with path.open("r+b") as file:
        file.truncate(3 * 1024)
    assert len(contents(Shards(str(path)))) == 3
    assert "has no mark at its end, it may be cut off" in capsys.readouterr().err


def member(name="d/x.png", **given):
    info = tarfile.TarInfo(name)
    for key, value in given.items():
        setattr(info, key, value)
    return info


def patched(content, at, new):
    r"""A header with other bytes, and the sum of bytes that belongs to it."""
    block = bytearray(content)
    block[at : at + len(new)] = new
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block[:512]):06o}\0 ".encode()
    return bytes(block)


def huge(path, size):
    content = write(path, pairs(range(3))).read_bytes()
    path.write_bytes(patched(content[:512], 124, size) + content[512:])


def note(path, text, kind=b"x"):
    content = write(path, [("n", text), *pairs(range(3))]).read_bytes()
    path.write_bytes(patched(content[:512], 156, kind) + content[512:])


HOSTILE = {
    "symbolic link": (lambda p: write(p, [(member(type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")]), "is a link"),
    "hard link": (lambda p: write(p, [(member(type=tarfile.LNKTYPE, linkname="/etc/passwd"), b"")]), "is a link"),
    "device": (lambda p: write(p, [(member(type=tarfile.CHRTYPE), b"")]), "is a device"),
    "pipe": (lambda p: write(p, [(member(type=tarfile.FIFOTYPE), b"")]), "is a pipe"),
    "huge": (lambda p: huge(p, b"77777777777\0"), r"cut off: 'd/0000.png' has 8589934591 bytes, \d+ are left"),
    "huge in binary": (lambda p: huge(p, b"\x80" + b"\xff" * 11), r"cut off: 'd/0000.png' has \d{26,} bytes"),
    "negative": (lambda p: huge(p, b"\xff" * 12), "cut off"),
    "no number": (lambda p: huge(p, b"hello world\0"), "is no number"),
    "huge in a note": (lambda p: note(p, b"30 size=999999999999999999\n" + b"\n" * 4), "damaged|cut off"),
    "negative in a note": (lambda p: note(p, b"11 size=-1\n"), "is no size"),
    "endless note": (lambda p: note(p, b"0 a=b\n"), "an extended header is damaged"),
    "long note": (lambda p: note(p, b" " * 70_000), "claims 70000 bytes for a name or note, 65536 are allowed"),
    "long name": (lambda p: note(p, b"a" * 5000, b"L"), "claims 5000 bytes for a name or note, 4096 are allowed"),
    "sparse": (lambda p: note(p, b"22 GNU.sparse.major=1\n"), "holds a sparse file"),
    "name": (lambda p: huge(p, b"") or p.write_bytes(patched(p.read_bytes(), 0, b"\xff\xfe")), "is not UTF-8"),
    "damaged": (lambda p: p.write_bytes(write(p, pairs(range(3))).read_bytes()[300:]), "no header at byte 0"),
    "cut off": (lambda p: p.write_bytes(write(p, pairs(range(3))).read_bytes()[:540]), "cut off"),
    "text": (lambda p: p.write_text("hello " * 200), "is not a readable tar file"),
    "empty": (lambda p: p.write_bytes(b""), "no pictures"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b" + b"a" * 600), r"is compressed \(gzip\).*plain .tar"),
    "pipe in the folder": (lambda p: os.mkfifo(p), "is not a regular file"),
    "no pictures": (lambda p: write(p, [("a.npy", b"x")]), r"no pictures .* hold 1 of .npy"),
    "two pictures": (lambda p: write(p, [("a.png", png(1)), ("a.jpg", b"x")]), "one picture.*'a.jpg'.*data.image="),
    "no label": (
        lambda p: write(p, [("a.png", b"x"), ("b.png", b"x"), ("b.cls", b"1")]),
        "1 of the 2 samples .* have no .cls, the first is 'a'",
    ),
    "mixed labels": (
        lambda p: write(p, [("a.png", b"x"), ("a.cls", b"1"), ("b.png", b"x"), ("b.cls", b"\xff")]),
        "'b.cls' in .* cannot be read",
    ),
    "classes": (lambda p: write(p, [("a.png", b"x"), ("a.cls", b"9999999")]), "numbers of classes from 0 to 99999"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_damaged_file_is_one_message_at_a_small_cost(tmp_path, case):
    make, text = HOSTILE[case]
    make(tmp_path / "a.tar")
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(UserError, match=text) as caught:
        Shards(str(tmp_path / "a.tar"))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - start < 5 and most < 5e7
    assert "\n" not in str(caught.value) and str(caught.value).startswith("data.")


def test_nothing_is_written_outside_whatever_the_names(tmp_path):
    write(tmp_path / "in" / "a.tar", [(f"../../{v}.png", png(v)) for v in range(3)] + [("/etc/x.png", png(3))])
    before = sorted(tmp_path.rglob("*"))
    assert contents(Shards(str(tmp_path / "in"))) == dict.fromkeys(range(4))
    assert sorted(tmp_path.rglob("*")) == before


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


def test_missing_and_compressed_files_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Shards(str(tmp_path / "a.tar"))
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no .tar files under .* 'a.tar.gz' is compressed"):
        Shards(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (png(2, size=(5, 5)), r"must have the same size, .*6 x 4, '.*a.tar: byte \d+' 5 x 5"),
        (png(2)[:30], r"a.tar: byte \d+' is not a readable image"),
        (b"", r"a.tar: byte \d+' is not a readable image"),
    ],
    ids=["size", "damaged", "empty"],
)
def test_a_damaged_picture_and_another_size_name_the_file_and_the_place(tmp_path, content, text):
    write(tmp_path / "a.tar", [("a.png", png(1)), ("b.png", content), ("c.png", png(3))])
    with pytest.raises(UserError, match=text):
        Shards(str(tmp_path))


def test_what_a_header_does_not_tell_is_skipped_counted_and_named_in_a_training(tmp_path, capsys):
    write(tmp_path / "a.tar", [("a.png", png(1)), ("b.png", png(2)[:45]), ("c.png", png(3)), ("d.png", png(4))])
    source = Shards(str(tmp_path), max_corrupt=0.3, test="none")
    assert sorted(contents_of(source.train)) == [1, 3, 3, 4]
    assert "a.tar: byte 1536' is not a readable image" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"is not a readable image|above the share of data.max_corrupt=0.2"):
        _ = Shards(str(tmp_path), max_corrupt=0.2, test="none").train[:]


def contents_of(part):
    return part[:][0][:, 0, 0, 0].tolist()


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


def test_huge_numbers_of_empty_members_cost_seconds(tmp_path):
    content = write(tmp_path / "a.tar", [("a.x", b"")]).read_bytes()[:512]
    (tmp_path / "a.tar").write_bytes(content * 20_000)
    start = time.monotonic()
    with pytest.raises(UserError, match="no pictures"):
        Shards(str(tmp_path))
    assert time.monotonic() - start < 10


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
