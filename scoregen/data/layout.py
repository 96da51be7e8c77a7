r"""Where the channels of an array of images are: last or first; asked for where the shape does not tell.

Of (a, b, c) the channels are c where c is below both others, and a where a is below both others. Where a and c are both
at most 4, that is not enough: the two sides must be equal too. (16, 16, 8) has 8 channels, (3, 16, 3) is asked for.
"""

from typing import Literal

from scoregen.errors import UserError

Layout = Literal["channels_last", "channels_first"]
LAST: Layout = "channels_last"
FIRST: Layout = "channels_first"
_FEW = 4  # channels that pictures usually have at most


def layout_of(sample: tuple[int, ...], given: Layout | None, name: str, key: str = "data.layout") -> Layout | None:
    r"""The layout of samples of this shape, as it is stored; None where they have no channels: (H, W) and (D,).

    Args:
        sample: shape of one sample. given: what `key` says. name: of the array, for messages. key: that gives it.

    Raises:
        UserError: it cannot be told, or is given where there are no channels.
    """
    if given not in (LAST, FIRST, None):
        raise UserError(f"{key}: must be channels_last or channels_first, got {given}.")
    if len(sample) not in (1, 2, 3) or 0 in sample:
        raise UserError(
            f"data.path: a sample of {name} must be (H, W), (H, W, C), (C, H, W) or a vector, got {sample}. Reshape it."
        )
    if len(sample) < 3:
        if given is not None:
            raise UserError(f"{key}: samples of {name} are {sample}, without channels. Leave {key} out.")
        return None
    found = given or _told(sample)
    if found is None:
        raise UserError(
            f"{key}: samples of {name} are {sample}, where the channels may be first or last. Give "
            f"{key}=channels_last ({_text(sample, LAST)}) or {key}=channels_first ({_text(sample, FIRST)})."
        )
    return found


def _told(sample: tuple[int, ...]) -> Layout | None:
    a, b, c = sample
    if a <= _FEW and c <= _FEW and a != b and b != c:
        return None
    if c < min(a, b):
        return LAST
    return FIRST if a < min(b, c) or a == b == c == 1 else None


def shape_of(sample: tuple[int, ...], layout: Layout | None) -> tuple[int, ...]:
    r"""The shape of a sample once it is read: (C, H, W), or (D,)."""
    if layout == LAST:
        return sample[2], sample[0], sample[1]
    return (1, *sample) if len(sample) == 2 else sample


def _text(sample: tuple[int, ...], layout: Layout) -> str:
    channels, height, width = shape_of(sample, layout)
    return f"{channels} channels of {height} x {width}"
