r"""What pictures hold: greys stay grey, transparency is put on white, deep values stay whole, nothing is cut."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from scoregen import parallel
from scoregen.data.files import picture_kind, read_deep, read_exact, read_picture
from scoregen.data.opening import Damaged
from scoregen.errors import UserError

tifffile = pytest.importorskip("tifffile")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (4, 6), dtype=np.uint8)


def on_white(pixels):
    r"""The law of compositing, in exact arithmetic."""
    alpha = ALPHA.astype(float) / 255
    alpha = alpha if pixels.ndim == 2 else alpha[..., None]
    return alpha * pixels + (1 - alpha) * 255


@pytest.mark.parametrize(
    "picture, expected",
    [
        (Image.fromarray(GREY).convert("P"), GREY),
        (Image.fromarray(np.dstack([GREY, np.full_like(GREY, 255)]), "LA"), GREY),
        (Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), on_white(GREY)),
        (Image.fromarray(np.dstack([COLOUR, ALPHA]), "RGBA"), on_white(COLOUR)),
        (Image.fromarray(COLOUR), COLOUR),
    ],
    ids=["grey palette", "opaque", "grey on white", "colours on white", "colours"],
)
def test_greys_stay_grey_and_transparency_is_put_on_white(tmp_path, picture, expected):
    picture.save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    expected = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    assert read.shape == expected.shape and read.dtype == torch.uint8
    assert np.abs(read.numpy() - expected).max() <= 1  # rounding of the composition
    kind = picture_kind(tmp_path / "a.png")
    assert (kind.channels, kind.height, kind.width, kind.deep) == (*expected.shape, False)


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 200, 100, 0])
    picture.save(tmp_path / "a.png", transparency=1)
    assert read_picture(tmp_path / "a.png")[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


def test_transparency_is_said_once(tmp_path, capsys):
    parallel.say_once.cache_clear()
    for name in "ab":
        Image.fromarray(np.dstack([GREY, ALPHA]), "LA").save(tmp_path / f"{name}.png")
        read_picture(tmp_path / f"{name}.png")
    assert capsys.readouterr().err == "data.path: pictures with transparency are put on white.\n"


SIXTEEN = np.array([[0, 13107], [65535, 1]], np.uint16)


def pillow(pixels, form):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


DEEP = {
    "png of 16 bits": (pillow(SIXTEEN, "PNG"), SIXTEEN / 65535),
    "tiff of 16 bits": (pillow(SIXTEEN, "TIFF"), SIXTEEN / 65535),
    "tiff, big-endian": (tiff(SIXTEEN.astype(">u2"), byteorder=">"), SIXTEEN / 65535),
    "tiff of floats": (pillow(SIXTEEN / np.float32(7) - 2, "TIFF"), SIXTEEN / 7 - 2),
    "tiff of doubles": (tiff(SIXTEEN / 7 - 2), SIXTEEN / 7 - 2),
    "tiff of halves": (tiff((SIXTEEN / 65535).astype(np.float16)), (SIXTEEN / 65535).astype(np.float16)),
    "colours of 16 bits": (tiff(np.dstack([SIXTEEN] * 3), photometric="rgb"), np.dstack([SIXTEEN] * 3) / 65535),
    "planes of 16 bits": (
        tiff(np.stack([SIXTEEN] * 3), photometric="rgb", planarconfig="separate"),
        np.dstack([SIXTEEN] * 3) / 65535,
    ),
    "colours of floats": (
        tiff(np.dstack([SIXTEEN / 7] * 3).astype(np.float32), photometric="rgb"),
        np.dstack([SIXTEEN / 7] * 3),
    ),
}


@pytest.mark.parametrize("content, expected", DEEP.values(), ids=DEEP)
def test_deep_values_are_whole(tmp_path, content, expected):
    (tmp_path / "a.tif").write_bytes(content)
    expected = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    read = read_deep(tmp_path / "a.tif", "data.path")[1]
    assert read.dtype == torch.float32
    np.testing.assert_allclose(read.numpy(), expected, rtol=1e-6)
    kind = picture_kind(tmp_path / "a.tif")
    assert (kind.channels, kind.height, kind.width, kind.deep) == (*expected.shape, True)
    with pytest.raises(UserError, match="more than 8 bits"):
        read_picture(tmp_path / "a.tif")


def test_resizing_keeps_deep_values_within_their_own(tmp_path):
    Image.fromarray(np.kron(np.eye(4), np.ones((4, 4))).astype(np.float32)).save(tmp_path / "a.tif")
    read = read_deep(tmp_path / "a.tif", "data.path", size=7)[1]
    assert read.shape == (1, 7, 7) and float(read.min()) >= 0 and float(read.max()) <= 1


def colour_png_of_16_bits():
    r"""Pillow writes none, so the header of a grey one is turned; the rows need not decode."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(12) for _ in range(2)))
    chunks = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    "content, text",
    [
        (
            tiff(np.zeros((3, 4, 6), np.uint8), photometric="minisblack"),
            r"'.*a.tif' has 3 pages, and none of them is picked",
        ),
        (tiff(np.zeros((3, 4, 6)), photometric="minisblack"), r"has 3 pages"),
        (tiff(np.zeros((4, 6, 2), np.uint8), photometric="minisblack", planarconfig="contig"), r"2 channels of uint8"),
        (tiff(np.zeros((4, 6), np.int16)), r"has mode I, which has no full scale. Convert"),
        (tiff(np.zeros((4, 6), np.complex64)), r"channels of complex64"),
        (colour_png_of_16_bits(), r"colours of 16 bits, of which 8 would be read. Write it as TIFF"),
    ],
    ids=["pages", "deep pages", "two channels", "integers", "complex", "png"],
)
def test_what_would_be_cut_is_refused(tmp_path, content, text):
    (tmp_path / "a.tif").write_bytes(content)
    for read in (lambda f: read_deep(f, "data.path"), picture_kind):
        with pytest.raises(UserError, match=text) as caught:
            read(tmp_path / "a.tif")
        assert not isinstance(caught.value, Damaged)
    with pytest.raises(UserError):
        read_exact(tmp_path / "a.tif", "restore")


@pytest.mark.parametrize("content", [b"", b"hello", pillow(GREY, "PNG")[:40], DEEP["tiff of doubles"][0][:40]])
def test_damage_is_told_from_a_mistake(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Damaged):
        read_deep(tmp_path / "a.png", "data.path")
