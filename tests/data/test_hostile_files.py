r"""Pictures and archives that claim more than they are, or that are not what they seem: one message each, soon."""

import io
import resource
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny import image_folder

from scoregen import parallel
from scoregen.data import CaptionedFolder, Folder, Npz
from scoregen.data.files import picture_shape, read_archive, read_array, read_picture
from scoregen.errors import UserError


@pytest.fixture(autouse=True)
def bounded():
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def png(path, width: int, height: int, bits: int = 1):
    r"""A grey picture, black, as small as it can be."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compressobj(9)
    row = bytes(1 + (width * bits + 7) // 8)
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("read", [read_picture, picture_shape])
@pytest.mark.parametrize("size", [(13_000, 13_000), (2**31 - 1, 2**31 - 1)], ids=["169 megapixels", "most"])
def test_a_picture_of_too_many_pixels_is_refused_from_its_header(tmp_path, read, size):
    path = png(tmp_path / "a.png", 8, 8)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", *size)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a.png' has {size[0]} x {size[1]} pixels, more than 67108864.*max_pixels"):
        read(path)


def test_the_bound_on_pixels_is_a_key(tmp_path):
    for name in "ab":
        png(tmp_path / f"{name}.png", 40, 30, 8)
    with pytest.raises(UserError, match="40 x 30 pixels, more than 1199"):
        Folder(str(tmp_path), max_pixels=1199)
    assert Folder(str(tmp_path), max_pixels=1200).shape == (1, 30, 40)


def test_a_thin_picture_is_not_made_huge(tmp_path):
    for name in "ab":
        png(tmp_path / f"{name}.png", 1, 60_000, 8)
    with pytest.raises(UserError, match=r"a.png' has 64 x 3840000 pixels, more than"):
        Folder(str(tmp_path), size=64).load(train=True)


@pytest.mark.parametrize("kind", [Folder, CaptionedFolder])
def test_sides_are_bounded(tmp_path, kind):
    with pytest.raises(UserError, match=r"data.size: must be at most 8192, the root of data.max_pixels, got 1000000"):
        kind(str(image_folder(tmp_path)), size=1_000_000)


@pytest.mark.parametrize("kind", [Folder, CaptionedFolder])
def test_one_image_alone_cannot_be_split(tmp_path, kind):
    png(tmp_path / "a.png", 8, 8, 8)
    (tmp_path / "a.txt").write_text("a caption")
    with pytest.raises(UserError, match=r"at least 2 images.* got '.*a.png' alone|must leave samples for training"):
        _ = kind(str(tmp_path)).train


def test_files_that_are_no_images_are_counted(tmp_path, capsys):
    parallel.say_once.cache_clear()
    image_folder(tmp_path)
    frames = [Image.new("L", (6, 4), i) for i in (0, 9)]
    for name in "ab":
        frames[0].save(tmp_path / f"{name}.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "notes").write_text("x")
    (tmp_path / "0.txt").write_text("a caption")
    assert len(Folder(str(tmp_path)).files) == 3
    assert "are left out: 2 of .gif, 1 of no suffix." in capsys.readouterr().err


def test_a_pipe_among_pictures_is_refused(tmp_path):
    import os

    image_folder(tmp_path)
    os.mkfifo(tmp_path / "0a.png")
    with pytest.raises(UserError, match="is not a file"):
        Folder(str(tmp_path))


def npy(shape: tuple[int, ...], content: bytes = b"") -> bytes:
    r"""An array of bytes that claims a shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def test_a_header_that_claims_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("train_images.npy", npy((10**12,)))
    (tmp_path / "a.npy").write_bytes(npy((10**12,)))
    for read in (lambda: Npz(str(tmp_path / "a.npz")), lambda: read_array(tmp_path / "a.npy", "between")):
        with pytest.raises(UserError, match=r"its header claims \(1000000000000,\) of uint8, and it has 128 bytes"):
            read()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("train_images.npy", "w") as file,
    ):
        file.write(npy((2**20, 8, 8)))
        for _ in range(64):
            file.write(bytes(2**20))
    with pytest.raises(
        UserError, match=r"has 67108992 bytes, packed in \d{5}, and 1000000 are allowed.*data.max_bytes"
    ):
        Npz(str(tmp_path / "a.npz"), max_bytes=1_000_000)
    assert read_archive(tmp_path / "a.npz", "images")["train_images"].shape == (2**20, 8, 8)  # below the bound


def test_what_was_not_compressed_may_be_large(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((100, 8, 8), np.uint8))
    assert len(Npz(str(tmp_path / "a.npz"), max_bytes=1).train) == 90


def flags(path, value: int) -> None:
    r"""Sets the flags of every member."""
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + offset] |= value
            place = content.find(mark, place + 4)
    path.write_bytes(content)


def test_an_encrypted_archive_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8), np.uint8))
    flags(tmp_path / "a.npz", 1)
    with pytest.raises(UserError, match=r"is not a readable .npz file.*encrypted"):
        Npz(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED, 99])
def test_a_damaged_archive_is_refused(tmp_path, method):
    path = tmp_path / "a.npz"
    known = method != 99
    with zipfile.ZipFile(path, "w", method if known else zipfile.ZIP_STORED) as archive:
        file = io.BytesIO()
        np.save(file, np.random.default_rng(0).integers(0, 255, (30, 8, 8), dtype=np.uint8))
        archive.writestr("images.npy", file.getvalue())
    content = bytearray(path.read_bytes())
    if known:
        content[60:900] = bytes(840)
    else:
        for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            content[content.find(mark) + offset] = method
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is not a readable .npz file") as caught:
        Npz(str(path))
    assert "\n" not in str(caught.value)


IMAGES = np.zeros((10, 8, 8), np.uint8)


@pytest.mark.parametrize(
    "arrays, text",
    [
        ({"images": IMAGES, "labels": np.zeros(7, int)}, "must hold a label for each of its 10 images, got 7"),
        ({"images": IMAGES, "labels": np.full(10, 2**40)}, "from 0 to 99999, or -1 for none, got 1099511627776 to"),
        ({"images": IMAGES, "labels": np.full(10, 2**64 - 1, np.uint64)}, "got 18446744073709551615 to"),
        ({"images": IMAGES, "labels": np.full(10, -5)}, "got -5 to -5"),
        (
            {"images": IMAGES, "labels": np.array(["a"] * 10)},
            r"must hold a whole number for each image, got \(10,\) of <U1",
        ),
        ({"images": np.array(["a"] * 10)}, "must be .* of uint8, uint16 or floats, got"),
        ({"images": np.float64(3)}, "must be .* of uint8, uint16 or floats, got"),
        ({"images": IMAGES.astype(complex)}, "must be .* of uint8, uint16 or floats, got"),
    ],
    ids=["fewer", "2^40", "2^64", "negative", "texts", "text images", "scalar", "complex"],
)
def test_arrays_that_are_no_images_with_labels_are_refused(tmp_path, arrays, text):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=text):
        Npz(str(tmp_path / "a.npz"))
