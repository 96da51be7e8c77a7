r"""Generated images from where sample.py left them: an .npz archive or a folder of pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoregen.data.files import DAMAGED, image_files, read_picture
from scoregen.errors import UserError


def archive_or_pictures(path: Path) -> Path:
    r"""What holds the samples in a folder that sample.py wrote; any other path as it is."""
    return next((p for p in (path / "samples.npz", path / "images") if p.exists()), path)


def read_samples(path: str | Path) -> Tensor:
    r"""Samples (N, *S) as they were saved: uint8, or float in the data's own units.

    Args:
        path: a folder that sample.py wrote; an .npz with `images` (N, C, H, W); or a folder with image files (searched
            recursively, in order of name).

    Raises:
        UserError: nothing there, or something else.
    """
    path = archive_or_pictures(Path(path))
    if path.is_dir():
        files = image_files(path, "samples")
        return _alike([read_picture(file, "samples")[:3] for file in files], path)  # without an alpha
    if not path.is_file():
        raise UserError(f"samples: '{path}' does not exist; give the .npz or the folder that sample.py wrote.")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            if "images" not in archive:
                raise UserError(
                    f"samples: '{path}' must hold an array 'images' (N, C, H, W), got {sorted(archive.files)}."
                )
            images = torch.from_numpy(archive["images"])
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(f"samples: '{path}' is not a readable .npz file ({error}).") from error
    if len(images) == 0:
        raise UserError(f"samples: 'images' of '{path}' is empty.")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"samples: 'images' of '{path}' must be uint8 or float, got {images.dtype}.")
    return images


def read_record(path: str | Path) -> dict[str, Any]:
    r"""What sample.py wrote about its samples (sampler, seed, checkpoint, ...); empty for samples from elsewhere."""
    path = Path(path)
    folder = path.parent if path.name in ("samples.npz", "images") else path  # other files there may be of other origin
    try:
        record = json.loads((folder / "samples.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _alike(pictures: list[Tensor], path: Path) -> Tensor:
    shapes = {tuple(picture.shape) for picture in pictures}
    if len(shapes) > 1:
        raise UserError(f"samples: pictures under '{path}' must be of one shape, got {sorted(shapes)[:3]}.")
    return torch.stack(pictures)
