r"""What a picture holds, from its header: grey or colour, bytes or more; and its values.

| in the file | read as |
|---|---|
| grey of 1 or 8 bits; a palette of greys | 1 channel of bytes |
| RGB; a palette of colours | 3 channels of bytes |
| CMYK, YCbCr | 3 channels of bytes, converted to RGB, which is said |
| any of these with transparency | the same on white, which is said |
| grey of 16 bits; TIFF of 16 bits, grey or RGB | fractions of full scale, 65535 |
| TIFF of floats, grey or RGB | the floats |

Of a file with several pages none is picked: it is refused. What Pillow would cut without a word is `Beyond` it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from scoregen.errors import UserError
from scoregen.parallel import say_once

_GREY, _COLOUR = ("1", "L", "LA", "La"), ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")
_PAGED = ("TIFF", "GIF", "WEBP", "PNG")  # a JPEG's further pictures are previews of it
_BITS, _SAMPLES, _FORMAT, _WHITE = 258, 277, 339, 262  # tags of a TIFF: bits, channels, kind of number, what 0 means
_SIGNED = 2  # of the kinds of numbers


class Beyond(UserError):
    r"""A picture of which Pillow would read a part: fewer bits, or fewer channels."""


@dataclass(frozen=True)
class Kind:
    r"""What a picture is read as.

    Args:
        channels: 1 or 3. height, width: in pixels. bits: 8, 16, or 32 for floats. clear: whether it may have
            transparency. full: height and width in the file, where the picture is resized.
    """

    channels: int
    height: int
    width: int
    bits: int = 8
    clear: bool = False
    full: tuple[int, int] | None = None

    @property
    def deep(self) -> bool:
        r"""Whether it has more than 8 bits, and is read as floats."""
        return self.bits > 8


def check_whole(image: Image.Image, name: object, where: str) -> None:
    r"""Refuses a picture that was just opened, and that Pillow would read in part.

    Raises:
        Beyond: it has more bits or channels than Pillow gives.
        UserError: it has several pages.
    """
    pages = getattr(image, "n_frames", 1) if image.format in _PAGED else 1
    if pages > 1:
        raise UserError(
            f"{where}: '{name}' has {pages} pages, and none of them is picked. Write each as a file of its own."
        )
    tags: Any = getattr(image, "tag_v2", {})
    deep = "16" in _packed(image) or max(tags.get(_BITS, (1,))) > 8
    if deep and image.mode not in (*_SIXTEEN, "I", "F"):
        raise Beyond(f"{where}: '{name}' has colours of 16 bits, of which 8 would be read.")
    if _SIGNED in tags.get(_FORMAT, ()) and image.mode not in ("I", "F"):
        raise Beyond(f"{where}: '{name}' has integers with a sign, of which none below 0 would be kept.")
    if image.mode in (*_SIXTEEN, "F") and tags.get(_WHITE, 1) == 0:
        raise UserError(f"{where}: '{name}' says that 0 is white (WhiteIsZero). Invert it, and say that 0 is black.")
    if image.mode in ("1", "L", *_SIXTEEN, "F") and tags.get(_SAMPLES, 1) > 1:
        raise Beyond(f"{where}: '{name}' has {tags[_SAMPLES]} channels, of which one would be read.")


def _packed(image: Image.Image) -> str:
    r"""How the bytes of the file are packed, in Pillow's words: RGB;16B."""
    tile: Any = getattr(image, "tile", None)
    found = tile[0][3] if tile else ""
    return str(found[0] if isinstance(found, tuple) and found else found)


def kind_of(image: Image.Image, where: str, name: object) -> Kind:
    r"""The kind of a picture, whose pixels are not read.

    Raises:
        UserError: its mode is no kind of picture.
    """
    if image.mode in _SIXTEEN or image.mode == "F":
        return Kind(1, image.height, image.width, bits=32 if image.mode == "F" else 16)
    clear = image.mode[-1] in "Aa" or "transparency" in image.info
    if image.mode in ("P", "PA"):
        return Kind(1 if _grey_palette(image) else 3, image.height, image.width, clear=clear)
    if image.mode in _GREY or image.mode in _COLOUR:
        return Kind(1 if image.mode in _GREY else 3, image.height, image.width, clear=clear)
    raise UserError(
        f"{where}: '{name}' has mode {image.mode}, which has no full scale. Convert it to 8 bits, to 16 bits (0 to "
        "65535) or to floats."
    )


def _grey_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB") or [0, 0, 1], dtype=np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def eight_bits(image: Image.Image, kind: Kind, where: str) -> Image.Image:
    r"""A picture of bytes in mode L or RGB; what is transparent is white."""
    mode = "L" if kind.channels == 1 else "RGB"
    if image.mode in ("CMYK", "YCbCr"):
        say_once(f"{where}: pictures in {image.mode} are converted to RGB, without a colour profile.")
    if not kind.clear:
        image.load()  # the file is closed after this
        return image if image.mode == mode else image.convert(mode)
    full = image.convert("RGBA")
    if full.getchannel("A").getextrema() != (255, 255):
        say_once(f"{where}: pictures with transparency are put on white.")
        full = Image.alpha_composite(Image.new("RGBA", full.size, (255, 255, 255, 255)), full)
    return full.convert(mode)


def fractions(pixels: np.ndarray) -> np.ndarray:
    r"""Deep pixels as float32: 16 bits as fractions of full scale, floats as they are."""
    with np.errstate(all="ignore"):  # values that are not finite are refused by whoever knows the range
        return pixels.astype(np.float32) / np.float32(65535 if pixels.dtype.kind == "u" else 1)
