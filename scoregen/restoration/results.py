r"""The results of a restoration in its folder: what is there, what is missing, and how pieces become files.

A scene of one band is written at once. Of others each band is a piece in a file of its own under parts/, whole or
absent, which any process may write at any time. When all are there, the file of the scene is put together from them.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scoregen.restoration.altered import Altered, keep, kept
from scoregen.restoration.bands import Band
from scoregen.restoration.scenes import Piece, Scene
from scoregen.storage import write_atomically
from scoregen.whole import is_archive


@dataclass(frozen=True)
class Missing:
    r"""What is still to be done.

    Args:
        bands: to be restored. planes: whose bands are all there. damaged: results that were there and are not whole.
    """

    bands: list[Band]
    planes: int
    damaged: int


class Results:
    r"""The results of scenes in a folder.

    Args:
        scenes: the scenes. bands: those of each scene. out: the folder.
    """

    def __init__(self, scenes: Sequence[Scene], bands: Sequence[Sequence[Band]], out: Path) -> None:
        self.scenes, self.bands, self.out = scenes, bands, out

    def missing(self) -> Missing:
        r"""What is not there, or not whole."""
        missing: list[Band] = []
        damaged = 0
        for scene, bands in zip(self.scenes, self.bands, strict=True):
            if not scene.keeps and scene.is_whole(self.out):
                continue
            damaged += not scene.keeps and scene.place(self.out).exists()
            if self._at_once(scene, bands):
                missing += bands
                continue
            for band in bands:
                place = self._piece(band)
                if not is_archive(place):
                    missing.append(band)
                    damaged += place.exists()
        unfinished = {(band.scene, band.plane) for band in missing}
        return Missing(missing, sum(len(scene.planes) for scene in self.scenes) - len(unfinished), damaged)

    def _at_once(self, scene: Scene, bands: Sequence[Band]) -> bool:
        r"""Whether the file of a scene is written without pieces."""
        return len(bands) == 1 and not scene.keeps

    def _piece(self, band: Band) -> Path:
        return self.scenes[band.scene].piece(self.out, band.plane, band.first)

    def _counts(self, band: Band) -> Path:
        r"""The file of what was changed in a band."""
        return self.out / "altered" / self._piece(band).relative_to(self.out / "parts").with_suffix(".json")

    def altered(self) -> Altered:
        r"""What was changed in all bands."""
        return sum((kept(self._counts(band)) for bands in self.bands for band in bands), Altered())

    def put(self, band: Band, values: np.ndarray, deviation: np.ndarray | None, altered: Altered | None = None) -> None:
        r"""Writes a restored band.

        Args:
            band: the rows. values: (C, rows, W) as they are in the file. deviation: that of the values, or None.
            altered: what was changed in it; None: nothing.
        """
        scene = self.scenes[band.scene]
        keep(self._counts(band), altered or Altered())
        if self._at_once(scene, self.bands[band.scene]):
            scene.write(self.out, _Given(Piece(band.first, values, deviation)))
            return
        arrays = {"values": values} | ({} if deviation is None else {"deviation": deviation})
        write_atomically(self._piece(band), lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]  # no flag

    def finish(self, number: int) -> Path:
        r"""Puts the file of a scene together where it is in pieces; called once, when all its bands are there."""
        scene, bands = self.scenes[number], self.bands[number]
        if not self._at_once(scene, bands) and (scene.keeps or not scene.is_whole(self.out)):
            scene.write(self.out, _Stored([(band, self._piece(band)) for band in bands]))
        if not scene.keeps:
            self._remove_pieces(self._piece(bands[0]).parent)
        return scene.place(self.out)

    def _remove_pieces(self, folder: Path) -> None:
        r"""Removes the pieces of a scene, and the folders that are empty without them."""
        shutil.rmtree(folder, ignore_errors=True)
        for parent in folder.parents:
            if parent == self.out or not parent.exists() or any(parent.iterdir()):
                return
            with suppress(OSError):  # another process has done it
                parent.rmdir()


class _Given:
    r"""One piece, which is in memory."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece

    def of(self, plane: int) -> Iterator[Piece]:
        yield self.piece


class _Stored:
    r"""Pieces in files."""

    def __init__(self, places: Sequence[tuple[Band, Path]]) -> None:
        self.places = places

    def of(self, plane: int) -> Iterator[Piece]:
        for band, place in self.places:
            if band.plane == plane:
                with np.load(place) as arrays:
                    yield Piece(band.first, arrays["values"], arrays.get("deviation"))
