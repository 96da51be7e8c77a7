r"""Tar files that are hostile, damaged or no tar files: one message, at a small cost."""

import os
import tarfile
import time
import tracemalloc

import pytest
from shard_parts import contents, pairs, png, write

from scoregen import parallel
from scoregen.data import Shards
from scoregen.errors import UserError


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


def test_huge_numbers_of_empty_members_cost_seconds(tmp_path):
    content = write(tmp_path / "a.tar", [("a.x", b"")]).read_bytes()[:512]
    (tmp_path / "a.tar").write_bytes(content * 20_000)
    start = time.monotonic()
    with pytest.raises(UserError, match="no pictures"):
        Shards(str(tmp_path))
    assert time.monotonic() - start < 10
