r"""Pictures that are alike: of one shape and depth, in the units of one range."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from scoregen.data.bounds import MOST_PIXELS
from scoregen.data.decode import Kind
from scoregen.data.files import picture_kind, read_deep
from scoregen.data.opening import Stored
from scoregen.data.units import UNIT, Range, check_units, in_range
from scoregen.errors import UserError
from scoregen.parallel import say_once

File = Path | Stored


@dataclass(frozen=True)
class Wanted:
    r"""How the pictures of a data set are read.

    Args:
        size: side that they are resized and cropped to; None for pictures that all have one size.
        channels: 1 or 3, that they are converted to; None for those of the files.
        most: pixels that a picture may have.
        range: what 0 and full scale stand for, and where floats must lie.
    """

    size: int | None = None
    channels: int | None = None
    most: int = MOST_PIXELS
    range: Range = UNIT

    @property
    def mode(self) -> str | None:
        r"""The mode of Pillow that pictures are converted to."""
        return None if self.channels is None else {1: "L", 3: "RGB"}[self.channels]

    def kind(self, file: File) -> Kind:
        r"""What a file is read as, from its header."""
        found = picture_kind(file, most=self.most)
        found = replace(found, channels=self.channels or found.channels)
        if self.size is None:
            return found
        return replace(found, height=self.size, width=self.size, full=(found.height, found.width))


class Alike:
    r"""Reads pictures that must be like the first one.

    Args:
        first: a file. wanted: how it is read.
    """

    def __init__(self, first: File, wanted: Wanted) -> None:
        self.first, self.wanted = first, wanted

    @cached_property
    def kind(self) -> Kind:
        r"""What the first picture is read as."""
        return self.wanted.kind(self.first)

    @property
    def shape(self) -> tuple[int, int, int]:
        r"""(C, H, W)."""
        return self.kind.channels, self.kind.height, self.kind.width

    @classmethod
    def to(cls, first: File, wanted: Wanted) -> "Alike":
        r"""For pictures like a file, whose header is read at once."""
        found = cls(first, wanted)
        _ = found.kind
        return found

    def check(self, file: File) -> Kind:
        r"""Refuses a file whose header tells another shape or depth; returns what it is read as."""
        kind = self.wanted.kind(file)
        if differs := self._differs(kind):
            raise self._refusal(file, *differs)
        return kind

    def read(self, files: Iterable[File]) -> Tensor:
        r"""Pictures (B, C, H, W): bytes, or float32 in the units of the range.

        Raises:
            UserError: one is of another shape or depth, or a float lies outside the range.
        """
        dtype = torch.float32 if self.kind.deep else torch.uint8
        pictures = [self._one(file) for file in files]
        return torch.stack(pictures) if pictures else torch.empty(0, *self.shape, dtype=dtype)

    def _one(self, file: File) -> Tensor:
        wanted = self.wanted
        found, pixels = read_deep(file, "data.path", wanted.mode, wanted.size, wanted.most)
        channels, height, width = pixels.shape
        differs = self._differs(Kind(channels, height, width, found.bits))
        if differs and differs[:2] == ("channels", 3):
            say_once("data.path: grey pictures among those with colours get three equal channels.")
            pixels = pixels.expand(self.shape)
        elif differs:
            raise self._refusal(file, *differs)
        if found.bits == 16:
            return in_range(pixels, wanted.range)
        if found.deep:
            check_units(pixels, wanted.range, f"'{file}'")
        return pixels

    def _differs(self, other: Kind) -> tuple[str, object, object] | None:
        r"""In what a picture differs from the first one, and both values."""
        first = self.kind
        if first.bits != other.bits:
            return "depth", f"{first.bits} bits", f"{other.bits} bits"
        if (first.height, first.width) != (other.height, other.width):
            return "size", f"{first.width} x {first.height}", f"{other.width} x {other.height}"
        return ("channels", first.channels, other.channels) if first.channels != other.channels else None

    def _refusal(self, file: File, what: str, here: object, there: object) -> UserError:
        remedy = {
            "channels": "Give data.channels=3 (grey pictures get three equal channels) or data.channels=1",
            "size": "Give data.size=N, and they are resized and cropped to N x N",
            "depth": "Convert them to one depth",
        }[what]
        return UserError(
            f"data.path: pictures must have the same {what}, but '{self.first}' has {here}, '{file}' {there}. {remedy}."
        )
