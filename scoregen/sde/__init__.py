r"""Processes: a Gaussian path (alpha, sigma, shift) in the coordinates of a chart."""

from scoregen.sde.additive import (
    EDM,
    VE,
    VP,
    Cosine,
    RectifiedFlow,
    SubVariancePreserving,
    SubVP,
    VarianceExploding,
    VariancePreserving,
)
from scoregen.sde.chart import Affine, Chart, Compose, Log, Logarithm
from scoregen.sde.columns import Columns
from scoregen.sde.discrete import DiscretePath
from scoregen.sde.multiplicative import GeometricBrownianMotion, GeometricOU, Linear, Multiplicative
from scoregen.sde.path import Path
from scoregen.sde.process import SDE

__all__ = [
    "EDM",
    "SDE",
    "VE",
    "VP",
    "Affine",
    "Chart",
    "Columns",
    "Compose",
    "Cosine",
    "DiscretePath",
    "GeometricBrownianMotion",
    "GeometricOU",
    "Linear",
    "Log",
    "Logarithm",
    "Multiplicative",
    "Path",
    "RectifiedFlow",
    "SubVP",
    "SubVariancePreserving",
    "VarianceExploding",
    "VariancePreserving",
]
