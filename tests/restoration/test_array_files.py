r"""Arrays and pictures come back as they were; damaged and cut files are named."""

import numpy as np
import pytest
from file_parts import same, tiff, values
from PIL import Image

from scoregen.errors import UserError
from scoregen.restoration import Band, Results, open_scenes

ARRAYS = {
    "image": (9, 8),
    "stack": (2, 9, 8),
    "last": (2, 9, 8, 3),
    "first": (2, 3, 9, 8),
    "grey": (2, 9, 8, 1),
}


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", "c8"])
@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("suffix", ["npy", "npz", "packed"])
def test_arrays_come_back_as_they_were_laid_out(suffix, kind, dtype, tmp_path):
    x = values(ARRAYS[kind], dtype)
    path = tmp_path / ("a.npy" if suffix == "npy" else "a.npz")
    if suffix == "npy":
        np.save(path, x)
    else:
        (np.savez if suffix == "npz" else np.savez_compressed)(path, images=x, label=np.arange(2))
    scene = open_scenes(str(path))[0]
    assert scene.planes[0].shape[1:] == (9, 8)
    result = same(scene, tmp_path / "out", rows=4)
    if suffix == "npy":
        assert result == tmp_path / "out" / "images" / "a.npy"
        assert result.read_bytes() == path.read_bytes()
        return
    with np.load(result) as found:
        assert result.name == "restored.npz" and set(found) == {"images", "std", "label"}
        assert found["images"].dtype == x.dtype and (found["images"] == x).all()
        np.testing.assert_allclose(found["std"], np.abs(x), rtol=1e-6)


@pytest.mark.parametrize(
    "shape, layout, text",
    [
        ((2, 3, 16, 3), None, "layout: samples of .* give layout=channels_last .3 channels of 3 x 16. or"),
        ((512, 500, 3), None, r"would be 512 images of 500 x 3 pixels. Give .* \(1, 512, 500, 3\)"),
        ((9, 8), "channels_last", "layout: images of .* have no channels, got layout=channels_last"),
        ((4,), None, r"must be \(H, W\), .* got \(4,\) of float32"),
    ],
)
def test_shapes_that_do_not_tell_are_asked_for(shape, layout, text, tmp_path):
    np.save(tmp_path / "a.npy", np.ones(shape, np.float32))
    with pytest.raises(UserError, match=f"(?i){text}"):
        open_scenes(str(tmp_path / "a.npy"), layout=layout)


def test_the_layout_that_is_asked_for_is_taken(tmp_path):
    x = values((2, 3, 16, 3), "f4")
    np.save(tmp_path / "a.npy", x)
    last = open_scenes(str(tmp_path / "a.npy"), layout="channels_last")[0]
    assert last.planes[0].shape == (3, 3, 16)
    assert (last.read(1, 0, 2) == x[1].transpose(2, 0, 1)[:, :2]).all()


@pytest.mark.parametrize("kind", ["grey.png", "colour.png", "deep.png", "grey.jpg"])
def test_pictures_come_back_by_name_size_and_mode(kind, tmp_path):
    x = values((9, 13, 3) if kind.startswith("colour") else (9, 13), "u2" if kind.startswith("deep") else "u1")
    Image.fromarray(x).save(tmp_path / kind)
    result = same(open_scenes(str(tmp_path / kind))[0], tmp_path / "out", rows=4)
    with Image.open(tmp_path / kind) as before, Image.open(result) as after:
        assert (before.mode, before.size, before.format) == (after.mode, after.size, after.format)
        a, b = (np.asarray(image, dtype=float) for image in (before, after))
    assert np.abs(a - b).mean() <= (12 if kind.endswith("jpg") else 0)  # JPEG changes a picture each time
    np.testing.assert_allclose(np.load(tmp_path / "out" / "std" / f"{kind}.npy"), a, rtol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "other"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_damaged_result_is_made_again(compression, damage, tmp_path):
    pytest.importorskip("tifffile")
    tiff(tmp_path / "a.tif", values((40, 30), "f4"), compression=compression)
    scene = open_scenes(str(tmp_path / "a.tif"))[0]
    result = same(scene, tmp_path / "out")
    whole = result.read_bytes()
    if damage == "cut":
        result.write_bytes(whole[:-9])
    else:
        tiff(result, values((8, 8), "f4"))
    bands = [[Band(0, 0, 0, 40)]]
    missing = Results([scene], bands, tmp_path / "out").missing()
    assert (missing.bands, missing.planes, missing.damaged) == (bands[0], 0, 1)
    assert same(scene, tmp_path / "out").read_bytes() == whole


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["mapped", "packed"])
def test_a_file_that_was_cut_off_is_named(options, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.random.default_rng(0).random((64, 64), np.float32), **options)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a.tif' is not a readable image .*Repair or remove it"):
        open_scenes(str(tmp_path), 10**6, None)[0].read(0, 0, 64)
