r"""The scenes at a path: a file, or those of a folder."""

from collections.abc import Sequence
from pathlib import Path

from scoregen.data.bounds import MOST_PIXELS
from scoregen.data.index import files_of
from scoregen.data.layout import Layout
from scoregen.errors import UserError, absent
from scoregen.restoration import pictures, tiff
from scoregen.restoration.arrays import Archive, ArrayFile
from scoregen.restoration.scenes import KEY, Scene

SUFFIXES = (*pictures.SUFFIXES, *tiff.SUFFIXES, ".npy")


def open_scenes(path: str, max_pixels: int = MOST_PIXELS, layout: Layout | None = None) -> list[Scene]:
    r"""The scenes at a path, in the order of their names.

    Args:
        path: a file, or a folder that is searched recursively. max_pixels: of a picture, which is unpacked as a whole.
        layout: where the channels of arrays are; None where the shape tells.

    Raises:
        UserError: there are no scenes; or one is damaged, too large, of another kind, or cannot be written as it is.
    """
    if not Path(path).exists():
        raise UserError(f"{KEY}: {absent(path)}")
    place = Path(path).resolve()
    if place.is_file():
        if place.suffix.lower() == ".npz":
            return [Archive(place, layout)]
        if place.suffix.lower() not in SUFFIXES:
            raise UserError(f"{KEY}: '{path}' is none of {', '.join(SUFFIXES)} and .npz. Convert it.")
        return [_opened(place, place.name, max_pixels, layout)]
    files = files_of(place, SUFFIXES, KEY)
    scenes = [_opened(file, file.relative_to(place).as_posix(), max_pixels, layout) for file in files]
    if layout is not None and not any(isinstance(scene, ArrayFile) for scene in scenes):
        raise UserError(f"layout: is of arrays (.npy, .npz), got layout={layout}. Leave it out.")
    return scenes


def changes(scenes: Sequence[Scene]) -> list[str]:
    r"""A line for each thing that results have otherwise than their files."""
    found: dict[str, list[str]] = {}
    for scene in scenes:
        for change in scene.changes:
            found.setdefault(change, []).append(scene.name)
    rest = {change: f" and {len(names) - 1} more" if len(names) > 1 else "" for change, names in found.items()}
    return [f"files: {change} ('{names[0]}'{rest[change]})" for change, names in found.items()]


def _opened(path: Path, name: str, max_pixels: int, layout: Layout | None) -> Scene:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return ArrayFile(path, name, layout)
    if suffix in tiff.SUFFIXES:
        return tiff.Tiff(path, name)
    return pictures.Picture(path, name, max_pixels)
