r"""Pictures in files: which there are, and their bytes."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from scoregen.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def image_files(folder: Path, where: str = "data.path") -> list[Path]:
    r"""The images of a folder, searched recursively, by name; hidden files and folders are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    files = sorted(p for p in found if not any(part[0] == "." for part in p.relative_to(folder).parts))
    if not files:
        raise UserError(f"{where}: no images ({', '.join(IMAGE_SUFFIXES)}) under '{folder}'.")
    return files


def read_image(file: Path, size: int | None = None, mode: str | None = None) -> torch.Tensor:
    r"""The bytes (C, H, W) of an image file.

    Args:
        size: shorter side after resizing, then cropped square; None for the image as it is.
        mode: of Pillow, "RGB" or "L", to convert to; None for the file's own.
    """
    from PIL import Image

    with opened(file) as image:
        image = plain(image) if mode is None else plain(image).convert(mode)
        if size:
            scale = size / min(image.size)
            image = image.resize([max(size, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
            left, top = ((side - size) // 2 for side in image.size)
            image = image.crop((left, top, left + size, top + size))
        pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


@contextmanager
def opened(file: Path):
    r"""An image the way up that its camera noted."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            ImageOps.exif_transpose(image, in_place=True)
            yield image
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"data.path: '{file}' is not a readable image ({error}); repair or remove it.") from error


def plain(image):
    r"""Palette, CMYK and 1-bit images as RGB and grey; 8-bit images as they are."""
    if image.mode in ("L", "RGB", "RGBA"):
        return image
    if image.mode not in ("1", "P", "LA", "CMYK", "YCbCr"):
        raise UserError(
            f"data.path: '{Path(image.filename).name}' has mode {image.mode}; convert it to 8-bit grey, RGB or RGBA."
        )
    return image.convert("L" if image.mode == "1" else "RGB")
