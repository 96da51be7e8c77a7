r"""Losses: `loss(model, x_0, label, generator) -> (B,)` with data in its own units."""

from scoregen.losses.classification import ConsistencyRegularization, CrossEntropy
from scoregen.losses.consistency import ConsistencyDistillation, ConsistencyTuning, Gap
from scoregen.losses.data_units import DataUnitMatching
from scoregen.losses.jacobian import VJP, FiniteDifference
from scoregen.losses.latent import LatentLoss
from scoregen.losses.multiplicative import ExplicitScoreMatching, NonNegativeScoreMatching
from scoregen.losses.pairing import OptimalTransportPairing
from scoregen.losses.representation import Momentum, RepresentationConsistency, Resolution
from scoregen.losses.score_matching import (
    DataWeighting,
    DenoisingScoreMatching,
    EDMWeighting,
    LogNormal,
    LogUniform,
    Loss,
    NoiseLevels,
    NoiseWeighting,
    ScoreMatching,
    UniformTime,
    VelocityWeighting,
    Weighting,
    WrappedLoss,
)
from scoregen.losses.smoothness import JacobianPenalty, StepwiseVariation

__all__ = [
    "VJP",
    "ConsistencyDistillation",
    "ConsistencyRegularization",
    "ConsistencyTuning",
    "CrossEntropy",
    "DataUnitMatching",
    "DataWeighting",
    "DenoisingScoreMatching",
    "EDMWeighting",
    "ExplicitScoreMatching",
    "FiniteDifference",
    "Gap",
    "JacobianPenalty",
    "LatentLoss",
    "LogNormal",
    "LogUniform",
    "Loss",
    "Momentum",
    "NoiseLevels",
    "NoiseWeighting",
    "NonNegativeScoreMatching",
    "OptimalTransportPairing",
    "RepresentationConsistency",
    "Resolution",
    "ScoreMatching",
    "StepwiseVariation",
    "UniformTime",
    "VelocityWeighting",
    "Weighting",
    "WrappedLoss",
]
