r"""Samplers over D(u, s), and the grids of noise ratios that they walk."""

from scoregen.samplers.base import Sampler
from scoregen.samplers.ddim import DDIM, Ancestral, Consistency
from scoregen.samplers.grids import Grid, Karras, Levels, LogLinear, PowerTime, UniformTime
from scoregen.samplers.heun import Heun

__all__ = [
    "DDIM",
    "Ancestral",
    "Consistency",
    "Grid",
    "Heun",
    "Karras",
    "Levels",
    "LogLinear",
    "PowerTime",
    "Sampler",
    "UniformTime",
]
