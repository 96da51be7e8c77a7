r"""Checks of the arguments that networks share."""

from collections.abc import Sequence

from scoregen.checks import inside, whole


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    r"""The shape (C, H, W) of an image.

    Raises:
        ValueError: not three entries, or an entry that is not positive.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"shape must be that of one image, (C, H, W) with positive entries, got {tuple(shape)}. Use an MLP for "
            "vectors."
        )
    channels, height, width = shape
    return channels, height, width


def check_options(num_classes: int | None, dropout: float) -> None:
    r"""Refuses a number of classes < 1 (None is an unconditional network) or a dropout outside [0, 1)."""
    if num_classes is not None:
        whole(1, num_classes=num_classes)
    inside(0, 1, "[)", dropout=dropout)
