r"""The base of denoisers that wrap a denoiser: guidance, conditioning on observations, clamping.

A wrapper is itself a denoiser of the same process, so wrappers nest and every sampler, likelihood and encoding takes
them.
"""

from abc import ABC
from typing import ClassVar

from scoregen.models.denoiser import AbstractDenoiser, shape_of
from scoregen.models.protocol import DenoiserLike


class DenoiserWrapper(AbstractDenoiser, ABC):
    r"""A denoiser with the process and the labels of the denoiser inside.

    Args:
        denoiser: D(u, s) of a process.
    """

    compiled_parts: ClassVar[tuple[str, ...]] = ("denoiser",)

    def __init__(self, denoiser: DenoiserLike) -> None:
        super().__init__()
        self.denoiser, self.sde = denoiser, denoiser.sde
        self.least_s = float(getattr(denoiser, "least_s", 0.0))
        if (sigma_data := getattr(denoiser, "sigma_data", None)) is not None:
            self.sigma_data = float(sigma_data)

    @property
    def num_classes(self) -> int | None:
        return getattr(self.denoiser, "num_classes", None)

    @property
    def shape(self) -> tuple[int, ...] | None:
        return shape_of(self.denoiser)

    @property
    def is_steep(self) -> bool:
        r"""Whether D changes so much between steps that multistep samplers should trust old values less."""
        return bool(getattr(self.denoiser, "is_steep", False))

    @property
    def is_consistency(self) -> bool:
        return bool(getattr(self.denoiser, "is_consistency", False))
