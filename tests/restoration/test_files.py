r"""Files come back as they were: pages, bands, type, order of bytes, compression, tags; the rest is refused by name."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scoregen.errors import UserError
from scoregen.restoration import Band, Results, open_scenes
from scoregen.restoration.scenes import Scene

GEO = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4.6e6, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
    (34737, "s", 0, "WGS 84 / UTM zone 33N|é".encode(), True),
    (42112, "s", 0, "<GDALMetadata><Item name='looks'>4</Item></GDALMetadata>", True),
    (42113, "s", 0, "0", True),
]
KINDS = {
    "strips": ((13, 17), {"rowsperstrip": 5}),
    "tiles": ((40, 50), {"tile": (16, 32)}),
    "bands": ((13, 17, 2), {"planarconfig": "contig"}),
    "planes": ((2, 13, 17), {"planarconfig": "separate", "rowsperstrip": 5}),
    "rgb": ((13, 17, 3), {"photometric": "rgb"}),
}


def same(scene: Scene, out: Path, rows: int = 7) -> Path:
    r"""A restoration that changes nothing, in bands of some rows."""
    bands = [
        Band(0, k, first, min(first + rows, plane.height))
        for k, plane in enumerate(scene.planes)
        for first in range(0, plane.height, rows)
    ]
    results = Results([scene], [bands], out)
    for band in reversed(results.missing().bands):
        values = scene.read(band.plane, band.first, band.last)
        results.put(band, values, np.abs(values).astype(np.float32))
    assert results.missing().planes == len(scene.planes)
    return results.finish(0)


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    draw = np.random.default_rng(0)
    x = 100 * draw.random(shape)
    return (x * np.exp(2j * np.pi * draw.random(shape)) if dtype[0] == "c" else x).astype(dtype)


def everything(path: Path) -> Iterator[tuple[object, ...]]:
    r"""What a TIFF file holds, page by page, but for the places of the pixels."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        yield file.byteorder, file.is_bigtiff
        for page in file.pages:
            tags = {tag.code: (tag.dtype, tag.count, tag.value) for tag in page.tags}
            pixels = {273: None, 279: None, 324: None, 325: None}
            yield tags | pixels, page.axes, page.dtype, page.asarray().tobytes()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", "c8"])
def test_a_tiff_file_comes_back_with_all_it_had(dtype, kind, compression, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    shape, options = KINDS[kind]
    if kind == "rgb" and dtype[0] == "c":
        pytest.skip("there are no complex colours")
    options = {"photometric": "minisblack", "metadata": None, "compression": compression} | options
    order = ">" if dtype[0] in "uf" else "<"
    x = values(shape, dtype)
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=order, bigtiff=dtype == "f8") as file:
        file.write(x, **options, extratags=GEO, description="a scene", software="me", resolution=(3, 4))
        file.write(x, **options)
    scene = open_scenes(str(tmp_path / "a.tif"))[0]
    assert len(scene.planes) == 2 and scene.planes[0].nodata == 0 and scene.planes[1].nodata is None
    result = same(scene, tmp_path / "out")
    assert result == tmp_path / "out" / "images" / "a.tif"
    assert list(everything(result)) == list(everything(tmp_path / "a.tif"))
    channels = np.moveaxis(x, 0, -1) if kind == "planes" else x
    for k in range(2):
        deviation = np.load(tmp_path / "out" / "std" / f"a.tif.{k}.npy")
        np.testing.assert_allclose(deviation, np.abs(channels).astype(np.float32), rtol=1e-6)
    assert not any((tmp_path / "out" / "parts").rglob("*.npz"))
    assert not list((tmp_path / "out").rglob("*.partial"))


def tiff(path: Path, *pages: np.ndarray, **options: object) -> None:
    import tifffile

    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, **{"metadata": None, "photometric": "minisblack"} | options)


def changed(path: Path, dtype: str, tag: int, value: int) -> None:
    r"""A TIFF whose tag says something else."""
    import tifffile

    tiff(path, values((8, 8), dtype))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags[tag].overwrite(value)


def pointing(path: Path, tag: int) -> None:
    r"""A TIFF with a pointer to another directory, which tifffile does not write."""
    tiff(path, values((8, 8), "f4"), extratags=[(65000, "I", 1, 8, True)])
    path.write_bytes(path.read_bytes().replace(struct.pack("<HHI", 65000, 4, 1), struct.pack("<HHI", tag, 4, 1)))


REFUSED = {
    "overview": (lambda p: tiff(p, values((8, 8), "f4"), subfiletype=1), "is an overview, a mask or has some"),
    "alpha": (
        lambda p: tiff(p, values((8, 8, 4), "u1"), photometric="rgb", extrasamples=["unassalpha"]),
        "has transparency, which is no intensity",
    ),
    "white": (lambda p: tiff(p, values((8, 8), "u1"), photometric="miniswhite"), "has 0 for white"),
    "subimages": (lambda p: tiff(p, values((8, 8), "u1"), subifds=1), "directory of further images"),
    "palette": (
        lambda p: tiff(p, values((8, 8), "u1"), photometric="palette", colormap=np.zeros((3, 256), np.uint16)),
        "has a palette",
    ),
    "bits": (lambda p: tiff(p, values((8, 8), "u1") > 50), "has 1 bits"),
    "12 bits": (lambda p: changed(p, "u2", 258, 12), "has 12 bits a value. Write 8"),
    "complex integers": (lambda p: changed(p, "i4", 339, 5), "has complex integers. Write complex64"),
    "cmyk": (lambda p: Image.new("CMYK", (8, 8)).save(p), "has CMYK colours"),
    "ycbcr": (lambda p: changed(p, "u1", 262, 6), "has YCbCr colours"),
    "volume": (
        lambda p: tiff(p, values((16, 16, 16), "f4"), volumetric=True, tile=(16, 16, 16)),
        "is a volume of depth 16. Write its slices",
    ),
    "exif": (lambda p: pointing(p, 34665), "has a directory of EXIF"),
    "gps": (lambda p: pointing(p, 34853), "has a directory of GPS"),
    "lossy": (lambda p: Image.new("RGB", (16, 16)).save(p, compression="jpeg"), "(JPEG|YCbCr)"),
    "hyperstack": (
        lambda p: (
            tiff(p, values((8, 8), "f4"), description="ImageJ=1.53\nimages=3\nslices=3\n"),
            p.write_bytes(p.read_bytes() + bytes(2 * 8 * 8 * 4)),
        ),
        "lists 1 page, and holds more images .a hyperstack",
    ),
    "nodata": (
        lambda p: tiff(p, values((8, 8), "f4"), extratags=[(42113, "s", 0, "none", True)]),
        "is no number: 'none'",
    ),
    "text": (lambda p: p.write_text("no picture"), "is not a readable image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_kept_is_refused_by_name(case, tmp_path):
    pytest.importorskip("tifffile")
    write, text = REFUSED[case]
    write(tmp_path / "a.tif")
    with pytest.raises(UserError, match=f"images: .*a.tif.*{text}"):
        open_scenes(str(tmp_path))


def test_packing_that_this_machine_has_no_program_for_is_named(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tiff(tmp_path / "a.tif", values((8, 8), "f4"))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages.first.tags[259].overwrite(5)
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="has compression LZW, which needs the package imagecodecs"):
            open_scenes(str(tmp_path / "a.tif"))


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
