r"""Whether a result is whole: read and checked, since a file of the right name may be empty or cut off."""

import zipfile
from pathlib import Path
from typing import Any


def is_png(path: Path, shape: tuple[int, ...]) -> bool:
    r"""Whether a file is a PNG of an image (C, H, W), with the right checksum in each of its chunks."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            fits = (len(picture.getbands()), picture.height, picture.width) == tuple(shape)
            picture.verify()
    except Exception:  # whatever the decoder raises
        return False
    return fits


def is_array(path: Path, shape: tuple[int, ...]) -> bool:
    r"""Whether a file is an .npy of this shape and as long as its header says; its values are not read."""
    import numpy as np

    try:
        values: Any = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # whatever the decoder raises
        return False
    found: tuple[tuple[int, ...], int] = values.shape, values.offset + values.nbytes
    return found == (tuple(shape), path.stat().st_size)


def is_picture(path: Path, size: tuple[int, int]) -> bool:
    r"""Whether a file is a picture (height, width) that can be decoded, with the right checksums where it has some."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            fits = (picture.height, picture.width) == size
            picture.verify()
        with Image.open(path) as picture:  # which `verify` has used up
            picture.load()
    except Exception:  # whatever the decoder raises
        return False
    return fits


def is_archive(path: Path) -> bool:
    r"""Whether a file is an .npz with the right checksum in each of its parts."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # whatever the decoder raises
        return False


def said(damaged: int) -> str:
    r"""The words about results that are not whole."""
    return f", {damaged} damaged and made again" if damaged else ""
