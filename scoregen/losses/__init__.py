r"""Losses: `loss(model, x_0, label, generator) -> (B,)` with data in its own units."""

from scoregen.losses.classification import ConsistencyRegularization, CrossEntropy
from scoregen.losses.consistency import ConsistencyDistillation, ConsistencyTuning, Gap
from scoregen.losses.score_matching import (
    DataWeighting,
    DenoisingScoreMatching,
    EDMWeighting,
    LogNormal,
    LogUniform,
    Loss,
    NoiseLevels,
    NoiseWeighting,
    UniformTime,
    VelocityWeighting,
    Weighting,
)

__all__ = [
    "ConsistencyDistillation",
    "ConsistencyRegularization",
    "ConsistencyTuning",
    "CrossEntropy",
    "DataWeighting",
    "DenoisingScoreMatching",
    "EDMWeighting",
    "Gap",
    "LogNormal",
    "LogUniform",
    "Loss",
    "NoiseLevels",
    "NoiseWeighting",
    "UniformTime",
    "VelocityWeighting",
    "Weighting",
]
