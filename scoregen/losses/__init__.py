r"""Losses: `loss(model, x_0, label, generator) -> (B,)` with data in its own units."""

from scoregen.losses.ambient import AmbientScoreMatching
from scoregen.losses.base import Loss, TrainableDenoiser, WrappedLoss
from scoregen.losses.classification import ConsistencyRegularization, CrossEntropy
from scoregen.losses.consistency import ConsistencyDistillation, ConsistencyTuning, Gap
from scoregen.losses.data_units import DataUnitMatching
from scoregen.losses.flow_map import FlowMap
from scoregen.losses.gaussian_split import GaussianSplit
from scoregen.losses.hyvarinen import ExplicitScoreMatching, NonNegativeScoreMatching
from scoregen.losses.jacobian import VJP, Estimator, FiniteDifference
from scoregen.losses.latent import LatentLoss
from scoregen.losses.macer import MACER
from scoregen.losses.noise_levels import FlowTime, LogNormal, LogUniform, NoiseLevels, UniformTime
from scoregen.losses.noprop import NoProp
from scoregen.losses.pairing import OptimalTransportPairing
from scoregen.losses.representation import Momentum, RepresentationConsistency, Resolution
from scoregen.losses.score_matching import DenoisingScoreMatching, ScoreMatching
from scoregen.losses.smooth_adv import SmoothAdv
from scoregen.losses.smooth_mix import SmoothMix
from scoregen.losses.smoothness import JacobianPenalty, StepwiseVariation
from scoregen.losses.speckle_split import SpeckleSplit
from scoregen.losses.splitting import Splitting
from scoregen.losses.table import TableScoreMatching
from scoregen.losses.weightings import (
    DataWeighting,
    EDMWeighting,
    FlowWeighting,
    NoiseWeighting,
    VelocityWeighting,
    Weighting,
)

__all__ = [
    "MACER",
    "VJP",
    "AmbientScoreMatching",
    "ConsistencyDistillation",
    "ConsistencyRegularization",
    "ConsistencyTuning",
    "CrossEntropy",
    "DataUnitMatching",
    "DataWeighting",
    "DenoisingScoreMatching",
    "EDMWeighting",
    "Estimator",
    "ExplicitScoreMatching",
    "FiniteDifference",
    "FlowMap",
    "FlowTime",
    "FlowWeighting",
    "Gap",
    "GaussianSplit",
    "JacobianPenalty",
    "LatentLoss",
    "LogNormal",
    "LogUniform",
    "Loss",
    "Momentum",
    "NoProp",
    "NoiseLevels",
    "NoiseWeighting",
    "NonNegativeScoreMatching",
    "OptimalTransportPairing",
    "RepresentationConsistency",
    "Resolution",
    "ScoreMatching",
    "SmoothAdv",
    "SmoothMix",
    "SpeckleSplit",
    "Splitting",
    "StepwiseVariation",
    "TableScoreMatching",
    "TrainableDenoiser",
    "UniformTime",
    "VelocityWeighting",
    "Weighting",
    "WrappedLoss",
]
