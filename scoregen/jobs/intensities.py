r"""Intensity images to images: a picture, a folder of pictures, or the `images` of an .npz file.

Both kinds have names and sizes, give image k as float32 (C, H, W), and keep results as they found their images: 8 and
16-bit ones are fractions of full scale and come back rounded, float ones are as they are.
"""

import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoregen.data.bounds import MOST_PIXELS
from scoregen.data.files import as_fraction, picture_shape, read_archive, read_exact
from scoregen.errors import UserError, absent
from scoregen.whole import is_archive, is_array, is_picture
from scoregen.storage import write_atomically

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}


class Intensities(ABC):
    r"""Images, and the places of their results in an output folder."""

    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def key(self, k: int) -> int:
        r"""What the noise of image k is keyed by: the same in whatever company it comes."""

    @abstractmethod
    def shape(self, k: int) -> tuple[int, int, int]:
        r"""(C, H, W) of image k."""

    @abstractmethod
    def read(self, k: int) -> Tensor:
        r"""Image k, float32 (C, H, W)."""

    @abstractmethod
    def place(self, k: int, out: Path) -> Path:
        r"""The file that says that image k is done."""

    @abstractmethod
    def is_whole(self, k: int, out: Path) -> bool:
        r"""Whether the result of image k is there and can be read."""

    @abstractmethod
    def write(self, k: int, out: Path, mean: Tensor, deviation: Tensor | None) -> None:
        r"""Writes the result of image k (C, H, W) and the standard deviation of its pixels, atomically."""

    def finish(self, out: Path) -> Path:
        r"""Called once, when every image is done; what to look at."""
        return out


class Pictures(Intensities):
    r"""A picture or a folder of them; results under images/ by the same names, deviations under std/ as .npy.

    Args:
        path: a file, or a folder that is searched recursively. max_pixels: that a picture may have.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files or files[0].suffix.lower() not in SUFFIXES:
            raise UserError(f"images: no pictures ({', '.join(SUFFIXES)}) and no .npz at '{path}'.")
        self.root, self.max_pixels = path.parent if path.is_file() else path, max_pixels
        self.names = [str(p.relative_to(self.root)) for p in files]

    def key(self, k: int) -> int:
        return zlib.crc32(Path(self.names[k]).as_posix().encode())

    def _pixels(self, k: int) -> Tensor:
        r"""Image k as it stands in its file (C, H, W)."""
        return read_exact(self.root / self.names[k], "images", self.max_pixels)

    def shape(self, k: int) -> tuple[int, int, int]:
        return picture_shape(self.root / self.names[k], "images", exact=True, most=self.max_pixels)

    def read(self, k: int) -> Tensor:
        return as_fraction(self._pixels(k))

    def place(self, k: int, out: Path) -> Path:
        return out / "images" / self.names[k]

    def is_whole(self, k: int, out: Path) -> bool:
        channels, *size = self.shape(k)
        std = self._std(k, out)
        values = (*size,) if channels == 1 else (*size, channels)
        return is_picture(self.place(k, out), (size[0], size[1])) and (not std.exists() or is_array(std, values))

    def _std(self, k: int, out: Path) -> Path:
        return out / "std" / f"{self.names[k]}.npy"

    def write(self, k: int, out: Path, mean: Tensor, deviation: Tensor | None) -> None:
        from PIL import Image

        if deviation is not None:
            values = _interleaved(deviation)
            write_atomically(self._std(k, out), lambda file: np.save(file, values))
        picture = Image.fromarray(_as(self._pixels(k).numpy().dtype, _interleaved(mean)))
        place = self.place(k, out)
        options: dict[str, Any] = {"quality": 95} if SUFFIXES[place.suffix.lower()] == "JPEG" else {}
        write_atomically(place, lambda file: picture.save(file, format=SUFFIXES[place.suffix.lower()], **options))


class Archive(Intensities):
    r"""`images` (N, H, W[, C]) or (N, C, H, W) of an .npz file; results in restored.npz as `images` and `std`.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        archive = read_archive(path, "images")
        if "images" not in archive:
            raise UserError(f"images: '{path}' must hold 'images', got {sorted(archive)}.")
        images = archive["images"]
        if images.ndim not in (3, 4) or images.dtype.kind not in "uf":
            raise UserError(
                f"images: 'images' must be (N, H, W), (N, H, W, C) or (N, C, H, W) of unsigned integers or floats, "
                f"got {images.shape} of {images.dtype}."
            )
        self.images = images
        self.last = images.ndim == 4 and images.shape[-1] in (1, 3) and images.shape[1] not in (1, 3)
        self.names = [f"images[{k}]" for k in range(len(images))]

    def key(self, k: int) -> int:
        return k

    def shape(self, k: int) -> tuple[int, int, int]:
        channels, height, width = self.read(k).shape
        return channels, height, width

    def read(self, k: int) -> Tensor:
        image = self.images[k]
        image = image[None] if image.ndim == 2 else image.transpose(2, 0, 1) if self.last else image
        return as_fraction(torch.from_numpy(np.ascontiguousarray(image)))

    def place(self, k: int, out: Path) -> Path:
        return out / "parts" / f"{k:06d}.npz"

    def is_whole(self, k: int, out: Path) -> bool:
        return is_archive(self.place(k, out))

    def write(self, k: int, out: Path, mean: Tensor, deviation: Tensor | None) -> None:
        parts: dict[str, Any] = {"images": self._laid_out(mean)}
        parts |= {} if deviation is None else {"std": self._laid_out(deviation)}
        write_atomically(self.place(k, out), lambda file: np.savez(file, **parts))

    def _laid_out(self, x: Tensor) -> np.ndarray:
        values = x.float().cpu().numpy()
        return values[0] if self.images.ndim == 3 else values.transpose(1, 2, 0) if self.last else values

    def finish(self, out: Path) -> Path:
        parts = []
        for k in range(len(self)):
            with np.load(self.place(k, out)) as part:
                parts.append(dict(part))
        whole: dict[str, Any] = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        whole["images"] = _as(self.images.dtype, whole["images"])
        write_atomically(out / "restored.npz", lambda file: np.savez(file, **whole))
        return out / "restored.npz"


def open_intensities(path: str, max_pixels: int = MOST_PIXELS) -> Intensities:
    r"""The images at a path, none of which has more pixels than allowed."""
    if not Path(path).exists():
        raise UserError(f"images: {absent(path)}")
    place = Path(path).resolve()
    images = Archive(place) if place.suffix == ".npz" and place.is_file() else Pictures(place, max_pixels)
    if len(images) == 0:
        raise UserError(f"images: '{path}' holds no images.")
    return images


def _as(dtype: np.dtype, values: np.ndarray) -> np.ndarray:
    r"""The inverse of `as_fraction`: rounded and cut to full scale for integers."""
    if dtype.kind != "u":
        return values.astype(dtype)
    full = np.iinfo(dtype).max
    return (values.astype(np.float64).clip(0, 1) * full).round().astype(dtype)


def _interleaved(x: Tensor) -> np.ndarray:
    r"""(C, H, W) as (H, W) or (H, W, C)."""
    values = x.float().cpu().numpy()
    return values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
