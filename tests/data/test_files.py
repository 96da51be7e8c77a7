r"""The readers of pictures and arrays: what they give, and that damage is named by the key and the file."""

import numpy as np
import pytest
import torch
from PIL import Image

from scoregen.data.files import as_fraction, picture_shape, read_archive, read_array, read_exact, read_picture
from scoregen.errors import UserError

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6)


@pytest.mark.parametrize(
    "pixels, file, dtype",
    [
        (GREY, "a.png", torch.uint8),
        (np.stack([GREY, GREY + 1, GREY + 2], axis=-1), "a.png", torch.uint8),
        (GREY.astype(np.uint16) * 2000, "a.png", torch.uint16),
        (GREY.astype(np.float32) / 7 - 1, "a.tif", torch.float32),
    ],
    ids=["grey", "rgb", "16-bit", "float"],
)
def test_exact_values_are_those_of_the_file(tmp_path, pixels, file, dtype):
    Image.fromarray(pixels).save(tmp_path / file)
    read = read_exact(tmp_path / file, "restore")
    assert read.dtype == dtype
    assert read.numpy().tolist() == (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)).tolist()
    assert picture_shape(tmp_path / file, "restore", exact=True) == tuple(read.shape)


@pytest.mark.parametrize("mode, channels", [("L", 1), ("1", 1), ("RGB", 3), ("RGBA", 3), ("P", 1), ("LA", 1)])
def test_pictures_are_read_as_bytes_of_the_shape_in_their_header(tmp_path, mode, channels):
    Image.fromarray(GREY).convert(mode).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    assert (read.dtype, tuple(read.shape)) == (torch.uint8, (channels, 4, 6))
    assert picture_shape(tmp_path / "a.png") == (channels, 4, 6)
    assert read_picture(tmp_path / "a.png", mode="RGB").shape == (3, 4, 6)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA"])
def test_nothing_is_converted_where_exact_values_are_wanted(tmp_path, mode):
    Image.fromarray(GREY).convert(mode).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=rf"^restore: 'a.png' has mode {mode}\. Convert it to grey \(8 bits, 16"):
        read_exact(tmp_path / "a.png", "restore")


def test_sixteen_bits_are_not_cut_to_eight(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 2000).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"^between: '.*a.png' has more than 8 bits\. Convert it to grey or RGB of 8"):
        read_picture(tmp_path / "a.png", "between", mode="L")


def test_exact_values_stand_as_the_camera_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    assert read_exact(tmp_path / "a.png", "restore")[0].tolist() == np.rot90(GREY, -1).tolist()
    assert picture_shape(tmp_path / "a.png", "restore", exact=True) == (1, 6, 4)


@pytest.mark.parametrize(
    "pixels, expected",
    [
        (np.array([0, 51, 255], np.uint8), [0.0, 0.2, 1.0]),
        (np.array([0, 13107, 65535], np.uint16), [0.0, 0.2, 1.0]),
        (np.array([-3.5, 2.0]), [-3.5, 2.0]),
    ],
    ids=["bytes", "16-bit", "float"],
)
def test_integers_are_fractions_of_full_scale_and_floats_are_as_they_are(pixels, expected):
    read = as_fraction(torch.from_numpy(pixels))
    assert read.dtype == torch.float32
    torch.testing.assert_close(read, torch.tensor(expected))


@pytest.mark.parametrize("kind", ["absent", "folder", "text", "truncated"])
@pytest.mark.parametrize("reader", [read_picture, read_exact, picture_shape])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, kind, reader):
    file = damaged(tmp_path / "a.png", kind, lambda f: Image.fromarray(GREY).save(f, format="PNG"), 20)
    with pytest.raises(UserError, match=r"^samples: .*a\.png"):
        reader(file, "samples")


@pytest.mark.parametrize("kind", ["absent", "folder", "text", "empty", "truncated", "other", "pickle"])
@pytest.mark.parametrize("reader, save, other", [(read_archive, np.savez, np.save), (read_array, np.save, np.savez)])
def test_arrays_that_cannot_be_read_are_named(tmp_path, kind, reader, save, other):
    content = np.array([{"a": 1}], dtype=object) if kind == "pickle" else np.zeros((50, 50))
    file = damaged(tmp_path / "a.npz", kind, lambda f: (other if kind == "other" else save)(f, content), 300)
    with pytest.raises(UserError, match=r"^samples: .*a\.npz"):
        reading = reader(file, "samples")
        _ = reading["arr_0"]


def test_an_archive_is_a_mapping_that_reads_what_is_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", images=GREY, labels=np.arange(3), broken=np.array([{}], dtype=object))
    archive = read_archive(tmp_path / "a.npz", "samples")
    assert sorted(archive) == ["broken", "images", "labels"]
    assert archive["images"].tolist() == GREY.tolist()
    assert "label" not in archive
    assert archive.get("label") is None


def damaged(path, kind, save, length):
    if kind == "folder":
        path.mkdir()
    elif kind in ("text", "empty"):
        path.write_text("hello" if kind == "text" else "")
    elif kind != "absent":
        with path.open("wb") as file:
            save(file)
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:length])
    return path
