r"""The base of denoisers that are made of another one: guidance, conditioning on observations, clamping.

A wrapper is itself a denoiser of the same process, so wrappers nest and every sampler, likelihood and encoding takes
them.
"""

from abc import ABC
from typing import Any

from scoregen.models.denoiser import AbstractDenoiser


class DenoiserWrapper(AbstractDenoiser, ABC):
    r"""A denoiser with the process and the labels of another one.

    Args:
        denoiser: anything with `denoiser(u, s, label)` and `denoiser.sde`.
    """

    def __init__(self, denoiser: Any) -> None:
        super().__init__()
        self.denoiser, self.sde = denoiser, denoiser.sde

    @property
    def num_classes(self) -> int | None:
        return getattr(self.denoiser, "num_classes", None)
