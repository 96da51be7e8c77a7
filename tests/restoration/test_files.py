r"""Files come back as they were: pages, bands, type, order of bytes, compression, tags; the rest is refused by name."""

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from file_parts import same, tiff, values
from PIL import Image

from scoregen.errors import UserError
from scoregen.restoration import open_scenes
from scoregen.restoration.opening import changes
from scoregen.restoration.scenes import interleaved
from scoregen.restoration.tiff_segments import without_predictor

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


@pytest.mark.parametrize("dtype", ["i2", "u4", "i8", "f2", "c16"])
def test_rarer_types_come_back_from_a_large_file_of_planes_in_tiles(dtype, tmp_path):
    r"""BigTIFF, big-endian, bands apart, packed with differences where they are whole numbers."""
    tifffile = pytest.importorskip("tifffile")
    x = values((2, 40, 50), dtype)
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">" if dtype[0] != "c" else "<", bigtiff=True) as file:
        options = {"compression": "zlib", "predictor": True} if dtype in ("i2", "u4") else {}
        file.write(x, planarconfig="separate", photometric="minisblack", tile=(16, 32), metadata=None, **options)
    scene = open_scenes(str(tmp_path / "a.tif"))[0]
    np.testing.assert_array_equal(scene.read(0, 5, 33), x[:, 5:33])
    assert list(everything(same(scene, tmp_path / "out"))) == list(everything(tmp_path / "a.tif"))


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
    "lossy": (lambda p: Image.new("L", (16, 16)).save(p, compression="jpeg"), "is packed with losses .JPEG."),
    "lossy floats": (lambda p: changed(p, "f4", 259, 34887), "is packed with losses .LERC."),
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


@pytest.fixture
def bare() -> None:
    r"""A machine without imagecodecs."""
    if importlib.util.find_spec("imagecodecs"):
        pytest.skip("tifffile was imported with imagecodecs")


@pytest.mark.parametrize("number, name", [(34933, "PNG"), (50000, "ZSTD")])
def test_packing_that_this_machine_has_no_program_for_is_named(number, name, bare, tmp_path):
    pytest.importorskip("tifffile")
    changed(tmp_path / "a.tif", "f4", 259, number)
    with pytest.raises(UserError, match=f"has compression {name}, which needs the package imagecodecs. Install it"):
        open_scenes(str(tmp_path / "a.tif"))


LAID_OUT = [(1, "u1", 1), (2, "u1", 3), (2, "u2", 1), (2, "f4", 1), (3, "f4", 1)]
PACKED = [
    *[(packing, *rest) for packing in ("tiff_lzw", "tiff_adobe_deflate") for rest in LAID_OUT],
    *[("packbits", 1, dtype, bands) for dtype, bands in (("u1", 3), ("u2", 1), ("f4", 1))],
]


@pytest.mark.parametrize("packing, predictor, dtype, bands", PACKED)
def test_packed_files_need_no_imagecodecs(packing, predictor, dtype, bands, bare, tmp_path):
    r"""As libtiff packs them, in Pillow; several strips."""
    tifffile = pytest.importorskip("tifffile")
    x = values((19, 17, 3) if bands == 3 else (19, 17), dtype)
    tags = {317: predictor, 278: 7, 65000: "mine", 42113: "0"}
    Image.fromarray(x).save(tmp_path / "a.tif", compression=packing, tiffinfo=tags)
    scene = open_scenes(str(tmp_path / "a.tif"))[0]
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages.first.dataoffsets) > 1 and file.pages.first.predictor == predictor
    np.testing.assert_array_equal(interleaved(scene.read(0, 3, 16)), x[3:16])
    assert scene.planes[0].nodata == 0
    with tifffile.TiffFile(same(scene, tmp_path / "out")) as file:
        page = file.pages.first
        np.testing.assert_array_equal(page.asarray(), x)
        assert page.compression == 8 and page.tags[65000].value == "mine" and page.rowsperstrip == 7
    told = {"tiff_lzw": ["LZW compression comes back as deflate"], "packbits": ["PACKBITS compression comes back as"]}
    kept = predictor == 1 or (predictor == 2 and dtype != "f4")
    told = [*told.get(packing, []), *([] if kept else [f"predictor {predictor} comes back as none"])]
    found = changes([scene])
    assert len(found) == len(told) and all(a in b and "'a.tif'" in b for a, b in zip(told, found, strict=True))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f2", "f8"])
def test_differences_are_summed_in_the_order_of_the_file(dtype, order):
    r"""Of the bits of a value, along a row, for each band."""
    x = values((3, 5, 2), dtype)
    bits = x.view(f"u{x.itemsize}").copy()
    bits[:, 1:] -= x.view(bits.dtype)[:, :-1]
    kind = np.dtype(dtype).newbyteorder(order)
    found = without_predictor(bits.astype(bits.dtype.newbyteorder(order)).tobytes(), 2, x.shape, kind)
    np.testing.assert_array_equal(found, x)


def test_tiles_that_a_sparse_file_leaves_out_are_without_data(tmp_path):
    r"""As GDAL reads them."""
    pytest.importorskip("tifffile")
    tiles = (None if k == 1 else np.full((16, 16), k + 1.0, np.float32) for k in range(4))
    tags = [(42113, "s", 0, "-9999", True)]
    options = {"shape": (32, 32), "dtype": "f4", "tile": (16, 16), "extratags": tags, "compression": "zlib"}
    tiff(tmp_path / "a.tif", tiles, **options)
    scene = open_scenes(str(tmp_path / "a.tif"))[0]
    found = scene.read(0, 0, 32)[0]
    assert (found[:16, 16:] == -9999).all() and (found[16:, 16:] == 4).all() and (found[:16, :16] == 1).all()
