r"""TIFF files that Pillow cannot read, or would cut: colours of 16 bits, floats of 16 and 64 bits or in colour."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scoregen.data.bounds import check_pixels
from scoregen.data.decode import Kind
from scoregen.errors import UserError

if TYPE_CHECKING:
    from tifffile import TiffPage

_DEEP = ("uint16", "float16", "float32", "float64")
_FIRST = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # bytes of a TIFF file


def is_tiff(content: Path | bytes) -> bool:
    r"""Whether a file begins as a TIFF does."""
    if isinstance(content, bytes):
        return content[:4] in _FIRST
    with content.open("rb") as file:
        return file.read(4) in _FIRST


def read_tiff(content: Path | bytes, where: str, name: str, most: int, pixels: bool) -> tuple[Kind, np.ndarray | None]:
    r"""The kind of a TIFF file, and its pixels (H, W, C), where they are wanted, as they are.

    Raises:
        UserError: it has several pages, too many pixels, or other values or channels; or tifffile is missing.
    """
    try:
        from tifffile import TiffFile
    except ImportError as error:
        raise UserError(f"{where}: '{name}' needs tifffile. Install it: pip install 'scoregen[tiff]'.") from error
    with TiffFile(io.BytesIO(content) if isinstance(content, bytes) else content) as file:
        if len(file.pages) != 1:
            raise UserError(
                f"{where}: '{name}' has {len(file.pages)} pages, and none of them is picked. Write each as a file of "
                "its own."
            )
        page = file.pages.first
        kind = _kind(page, where, name)
        if page.photometric == 0:
            raise UserError(
                f"{where}: '{name}' says that 0 is white (WhiteIsZero). Invert it, and say that 0 is black."
            )
        check_pixels(Path(name), where, kind.width, kind.height, most)
        return kind, _channels_last(page.asarray(), page.axes) if pixels else None


def _kind(page: "TiffPage", where: str, name: str) -> Kind:
    if page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel not in (1, 3) or str(page.dtype) not in _DEEP:
        raise UserError(
            f"{where}: '{name}' has {page.samplesperpixel} channels of {page.dtype}. Write 1 or 3 channels of 8 bits, "
            "16 bits or floats."
        )
    return Kind(page.samplesperpixel, page.imagelength, page.imagewidth, 16 if str(page.dtype) == "uint16" else 32)


def _channels_last(pixels: np.ndarray, axes: str) -> np.ndarray:
    if axes == "YX":
        return pixels[..., None]
    return np.moveaxis(pixels, 0, -1) if axes == "SYX" else pixels
