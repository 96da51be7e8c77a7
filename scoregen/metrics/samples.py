r"""Generated images from files: an .npz archive or a folder of pictures, as the job sample writes them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoregen import storage
from scoregen.data.files import image_files, read_archive, read_picture
from scoregen.errors import UserError


def archive_or_pictures(path: Path) -> Path:
    r"""The samples in a folder of the job sample, an archive or a folder of pictures; any other path as it is."""
    return next((p for p in (path / "samples.npz", path / "images") if p.exists()), path)


def read_samples(path: str | Path) -> Tensor:
    r"""Samples (N, *S) as they were saved: uint8, or float in the data's own units.

    Args:
        path: a folder of the job sample; an .npz with `images` (N, C, H, W); or a folder with image files (searched
            recursively, in order of name).

    Raises:
        UserError: the path does not exist, is damaged or holds something else.
    """
    path = archive_or_pictures(Path(path))
    if path.is_dir():
        files = image_files(path, "samples")
        return _alike([read_picture(file, "samples")[:3] for file in files], path)  # without an alpha channel
    arrays = read_archive(path, "samples")
    if "images" not in arrays:
        raise UserError(f"samples: '{path}' must hold an array 'images' (N, C, H, W), got {sorted(arrays)}.")
    images = torch.from_numpy(arrays["images"])
    if len(images) == 0:
        raise UserError(f"samples: 'images' of '{path}' is empty.")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"samples: 'images' of '{path}' must be uint8 or float, got {images.dtype}.")
    return images


def read_record(path: str | Path) -> dict[str, Any]:
    r"""The record of the job that made samples (sampler, seed, checkpoint, ...); empty for samples from elsewhere."""
    path = Path(path)
    own = ("samples.npz", "images", "samples.csv", "samples.parquet")
    folder = path.parent if path.name in own else path  # other files may come from elsewhere
    try:
        return storage.read_record(folder)
    except UserError:
        return {}


def _alike(pictures: list[Tensor], path: Path) -> Tensor:
    shapes = {tuple(picture.shape) for picture in pictures}
    if len(shapes) > 1:
        raise UserError(f"samples: pictures under '{path}' must be of one shape, got {sorted(shapes)[:3]}.")
    return torch.stack(pictures)
