r"""Whether images with speckle are what loss=speckle_split expects: positive, in the range of the process, its looks.

A training of hours would not say so: it learns from any numbers > 0.
"""

from typing import Any

from torch import Tensor

from scoregen.data import Scenes, Source
from scoregen.data.intensity import full_scale, stated_intensity
from scoregen.data.scenes import Windows
from scoregen.data.units import percent
from scoregen.errors import UserError
from scoregen.losses import SpeckleSplit

_LOOKED = 64  # samples that are read
_LOOKS = 2.0  # factor of measured looks over given ones that is told: texture makes them fewer, never more


def check_speckle(loss: Any, sde: Any, source: Source) -> list[str]:
    r"""Reads some of the training images, before the first step.

    Args:
        loss: of the training; others than `SpeckleSplit` pass. sde: the process, whose `data_range` says where clean
            intensities lie. source: of the images.

    Returns:
        What is to be told.

    Raises:
        UserError: intensities of zero without a floor, or a factor of 10 off the range of the process.
    """
    if not isinstance(loss, SpeckleSplit):
        return []
    count = len(source.train)
    shown = min(_LOOKED, count)
    x = source.train.in_units([k * count // shown for k in range(shown)])[0]
    intensity = x.abs().square() if x.is_complex() else x.float()
    if not x.is_complex() and loss.floor is None:
        _check_positive(intensity, shown, source)
    if (span := getattr(sde, "data_range", None)) is not None:
        _check_scale(intensity, loss.looks, sde.offset + span[1], source)
    return _looks(intensity, loss.looks)


def _check_positive(x: Tensor, shown: int, source: Source) -> None:
    bad = ~(x > 0)
    if bool(bad.any()):
        missing = "data.nodata=0 if they mean no data, or " if isinstance(source, Scenes) else ""
        raise UserError(
            f"loss: {percent(float(bad.double().mean()))} of the pixels of {shown} training samples are 0 (or not a "
            f"number), and speckle has no zeros. Give {missing}loss.floor=VALUE, about half a step of the recording, "
            "to which they are raised."
        )


def _check_scale(x: Tensor, looks: float, top: float, source: Source) -> None:
    from scoregen.restoration import Speckle
    from scoregen.restoration.noise import BRIGHT
    from scoregen.restoration.survey import FACTOR

    values = x.flatten()
    step = -(-len(values) // 10**6)  # torch.quantile takes 16 million
    bright = Speckle(looks).bright(values[::step].quantile(BRIGHT).item(), 1.0)
    if top / FACTOR <= bright <= top * FACTOR:
        return
    raise UserError(
        f"data: the bright end of the clean intensities is about {bright:.3g}, and the process expects {top:.3g} "
        f"(sde.data_range, sde.offset). They must agree within a factor of {FACTOR:g}. "
        f"{_remedy(bright / top, source)}"
    )


def _remedy(factor: float, source: Source) -> str:
    part = source.train
    if not (isinstance(source, Scenes) and isinstance(part, Windows)):
        return (
            f"Divide the intensities by {factor:.2g}, or state where they lie: sde.offset=0 sde.data_range=[LOW,HIGH]."
        )
    from scoregen.restoration import Units

    plane = part.planes[0]
    unit = "amplitude" if plane.dtype.kind == "c" else source.unit
    scale = source.scale if source.scale is not None else full_scale(plane.dtype, unit)
    now = 1.0 if scale is None else stated_intensity("data.scale", scale, unit)
    return (
        f"Check data.unit={source.unit}, and give the value in the files that becomes 1: data.scale="
        f"{Units(unit, now).value(factor):.3g} is likely."
    )


def _looks(x: Tensor, looks: float) -> list[str]:
    from scoregen.metrics.speckle import equivalent_looks

    if x.ndim != 4:
        return []
    try:
        found = equivalent_looks(x.flatten(0, 1))
    except ValueError:  # too small
        return []
    if found.value - 3 * found.spread < _LOOKS * looks:
        return []
    return [
        f"loss.looks: {looks:g} given, but homogeneous windows have {found.value:.3g}. Amplitudes taken for intensities"
        " have four times their looks (data.unit=amplitude)"
    ]
