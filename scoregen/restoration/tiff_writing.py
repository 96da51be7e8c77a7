r"""TIFF files that are written as their source was: type, bands, pages, compression and tags."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from scoregen.errors import UserError
from scoregen.restoration.scenes import KEY, Piece, Pieces, Plane
from scoregen.restoration.tiff_segments import known, needs_imagecodecs
from scoregen.storage import write_atomically

if TYPE_CHECKING:
    from tifffile import TiffFile

_LAYOUT = (  # tags that say how a page lies in its file, which the writer makes
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289),
    *(317, 322, 323, 324, 325, 338, 339, 340, 341, 347),
)
_APART = (270, 282, 283, 296, 305, 306)  # that it has arguments for
_ALPHA = (1, 2)
_DEFLATE = 8
_COMPLEX_INTEGERS = 5  # of the tag SampleFormat
_COLOURS = {3: "a palette", 4: "a mask", 5: "CMYK colours", 6: "YCbCr colours", 8: "CIELab colours"}
_POINTERS = {330: "further images (SubIFDs)", 34665: "EXIF", 34853: "GPS", 40965: "interoperability"}  # to other places


def check_kept(file: "TiffFile", path: Path) -> None:
    r"""Refuses a file of which something could not be given back.

    Raises:
        UserError: with the name of what it is.
    """
    pages: list[Any] = list(file.pages)
    for page in pages:
        where = f"page {page.index} of '{path}'"
        if page.is_reduced or page.is_mask:
            raise UserError(
                f"{KEY}: {where} is an overview, a mask or has some, which would not fit the restored image. Remove "
                "them: gdal_translate -co COPY_SRC_OVERVIEWS=NO."
            )
        for code, name in _POINTERS.items():
            if code in page.tags:
                raise UserError(f"{KEY}: {where} has a directory of {name}, which would be lost. Remove it.")
        if any(int(kind) in _ALPHA for kind in page.extrasamples):
            raise UserError(f"{KEY}: {where} has transparency, which is no intensity. Remove this band.")
        _check_values(page, where)
        if page.compression in (6, 7, 22610, 33003, 33005, 34712, 34887, 50001):
            raise UserError(
                f"{KEY}: {where} is packed with losses ({page.compression.name}), which a result would have once more. "
                "Write it without: gdal_translate -co COMPRESS=DEFLATE."
            )
        if (missing := needs_imagecodecs(page)) is not None:
            raise UserError(
                f"{KEY}: {where} has {missing}, which needs the package imagecodecs. Install it (pip install "
                "imagecodecs), or write the file with deflate or without compression."
            )
    if (file.is_imagej or file.is_shaped) and sum(one.size for one in file.series) > sum(page.size for page in pages):
        raise UserError(
            f"{KEY}: '{path}' lists {len(pages)} page, and holds more images (a hyperstack of ImageJ or tifffile). "
            "Write its images as pages."
        )


def _check_values(page: Any, where: str) -> None:
    r"""Refuses a page whose numbers are no intensities."""
    if page.photometric not in (0, 1, 2):
        name = _COLOURS.get(int(page.photometric), page.photometric.name)
        raise UserError(f"{KEY}: {where} has {name}. Write grey or RGB values, without a palette.")
    if page.bitspersample not in (8, 16, 32, 64, 128):
        raise UserError(f"{KEY}: {where} has {page.bitspersample} bits a value. Write 8, 16, 32 or 64.")
    if page.sampleformat == _COMPLEX_INTEGERS:
        raise UserError(f"{KEY}: {where} has complex integers. Write complex64 (gdal_translate -ot CFloat32).")
    if page.imagedepth > 1:
        raise UserError(f"{KEY}: {where} is a volume of depth {page.imagedepth}. Write its slices as pages.")
    if page.photometric == 0:
        raise UserError(f"{KEY}: {where} has 0 for white. Write it with 0 for black.")


@dataclass(frozen=True)
class Packing:
    r"""How the values of a result are packed.

    Args:
        compression, predictor: TIFF's numbers. changes: from its source.
    """

    compression: int
    predictor: int
    changes: list[str]


def packing(page: Any) -> Packing:
    r"""That of a page's result: as the page has it, or deflate and no predictor where this machine cannot write it."""
    from tifffile import TIFF

    compression, predictor, changes = int(page.compression), int(page.predictor), []
    if not known(TIFF.COMPRESSORS, compression):
        changes.append(f"{page.compression.name} compression comes back as deflate")
        compression = _DEFLATE
    others = predictor == 2 and (page.dtype.kind in "fc" or page.dtype.itemsize == 8)  # which tifffile does not write
    if predictor != 1 and (others or not known(TIFF.PREDICTORS, predictor)):
        changes.append(f"predictor {predictor} comes back as none")
        predictor = 1
    return Packing(compression, predictor, changes)


def write_pages(place: Path, file: "TiffFile", planes: list[Plane], pieces: Pieces) -> None:
    r"""Writes the restored pages.

    Args:
        place: of the result. file: the source, open. planes: its images. pieces: of them.
    """
    from tifffile import TiffWriter

    place.parent.mkdir(parents=True, exist_ok=True)
    pages: list[Any] = list(file.pages)

    def write(handle: IO[bytes]) -> None:
        offsets: dict[int, int] = {}
        with TiffWriter(handle, bigtiff=file.is_bigtiff, byteorder=file.byteorder) as writer:
            for k, page in enumerate(pages):
                if page.compression == 1 and not page.is_tiled:
                    shape = shape_of(page.axes, planes[k])
                    found = writer.write(shape=shape, dtype=planes[k].dtype, returnoffset=True, **_arguments(page))
                    assert found is not None  # as asked for
                    offsets[k] = found[0]
                    continue
                with tempfile.TemporaryDirectory(dir=place.parent, prefix=".", suffix=".partial") as folder:
                    values = _assembled(Path(folder) / "page", page.axes, planes[k], pieces, k)
                    writer.write(values, **_arguments(page), contiguous=False)
                    del values
        for k, offset in offsets.items():
            _fill(handle, offset, pages[k].axes, planes[k], pieces.of(k), file.byteorder)

    write_atomically(place, write)


def _fill(
    handle: IO[bytes], offset: int, axes: str, plane: Plane, pieces: Iterator[Piece], order: Literal["<", ">"]
) -> None:
    r"""Writes the rows of a page that lies in one block, a piece in memory at a time."""
    row = plane.width * plane.dtype.itemsize
    kind = plane.dtype.newbyteorder(order)
    for piece in pieces:
        if axes == "SYX":
            for channel, values in enumerate(piece.values):
                handle.seek(offset + (channel * plane.height + piece.first) * row)
                handle.write(np.ascontiguousarray(values, kind).tobytes())
            continue
        handle.seek(offset + piece.first * row * plane.channels)
        values = piece.values[0] if axes == "YX" else np.moveaxis(piece.values, 0, -1)
        handle.write(np.ascontiguousarray(values, kind).tobytes())


def shape_of(axes: str, plane: Plane) -> tuple[int, ...]:
    r"""The shape of a page with axes YX, YXS or SYX."""
    sides = {"Y": plane.height, "X": plane.width, "S": plane.channels}
    return tuple(sides[axis] for axis in axes)


def _assembled(path: Path, axes: str, plane: Plane, pieces: Pieces, number: int) -> np.ndarray:
    r"""A page as its file has it, mapped, so that a large one takes no memory."""
    array = np.memmap(path, plane.dtype, "w+", shape=shape_of(axes, plane))
    for piece in pieces.of(number):
        rows = slice(piece.first, piece.first + piece.values.shape[1])
        if axes == "SYX":
            array[:, rows] = piece.values
        else:
            array[rows] = piece.values[0] if axes == "YX" else np.moveaxis(piece.values, 0, -1)
    return array


def _arguments(page: Any) -> dict[str, Any]:
    r"""What the writer is told of a page."""
    tags, packed = {tag.code: tag for tag in page.tags}, packing(page)
    found: dict[str, Any] = {
        "photometric": int(page.photometric),
        "planarconfig": {"YXS": 1, "SYX": 2}.get(page.axes),
        "compression": packed.compression,
        "predictor": packed.predictor if packed.predictor != 1 else None,
        "subfiletype": int(page.subfiletype) if 254 in tags else None,
        "metadata": None,
        "description": _raw(page, tags[270]) if 270 in tags else None,
        "software": _raw(page, tags[305]) if 305 in tags else False,
        "datetime": str(tags[306].value) if 306 in tags else None,
    }
    if page.is_tiled:
        found["tile"] = (page.tilelength, page.tilewidth)
    elif page.rowsperstrip < page.imagelength:
        found["rowsperstrip"] = page.rowsperstrip
    if 282 in tags and 283 in tags:
        found |= {"resolution": (tags[282].value, tags[283].value), "resolutionunit": int(page.resolutionunit)}
    if page.extrasamples:
        found["extrasamples"] = [int(kind) for kind in page.extrasamples]
    others = [tag for tag in page.tags if tag.code not in (*_LAYOUT, *_APART)]
    found["extratags"] = [(tag.code, int(tag.dtype), tag.count, _raw(page, tag), True) for tag in others]
    return found


def _raw(page: Any, tag: Any) -> bytes:
    r"""The bytes of a tag, in the order of the file."""
    file = page.parent.filehandle
    file.seek(tag.valueoffset)
    content: bytes = file.read(tag.valuebytecount)
    return content.rstrip(b"\0") if tag.code in _APART else content
