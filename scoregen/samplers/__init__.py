r"""Samplers over D(u, s), and the grids of noise ratios that they walk."""

from scoregen.samplers.adaptive import AdaptiveFlow
from scoregen.samplers.base import Sampler
from scoregen.samplers.dale_langevin import (
    AmbientLangevin,
    DaleLangevin,
    DalePaper,
    EqualTimes,
    dale_langevin_step,
)
from scoregen.samplers.ddim import DDIM, Ancestral, Consistency
from scoregen.samplers.despeckle import Despeckler, log_moments, speckle
from scoregen.samplers.diffusers_sampler import DiffusersSampler
from scoregen.samplers.dimension import LocalDimension, local_dimension
from scoregen.samplers.exponential import ExponentialAB, ExponentialABM
from scoregen.samplers.fitting import Fit, FittedLevels
from scoregen.samplers.flow_time import FlowTime
from scoregen.samplers.grids import Grid, Karras, Levels, LogLinear, OpenEnd, PowerTime, TimeTravel, UniformTime
from scoregen.samplers.heun import Heun
from scoregen.samplers.inversion import decode, edit, encode, interpolate, slerp, variance_preserving
from scoregen.samplers.jumps import Jumps
from scoregen.samplers.likelihood import Likelihood, log_likelihood
from scoregen.samplers.ode import RK2, RK4, RK45, ODESolver
from scoregen.samplers.pixel_observation import GammaObservation, PixelObservation, PoissonObservation
from scoregen.samplers.quantised import Quantised
from scoregen.samplers.scheduler import SamplerScheduler
from scoregen.samplers.sde import EulerMaruyama, PredictorCorrector
from scoregen.samplers.split_gibbs import SplitGibbs
from scoregen.samplers.tiles import Tiled
from scoregen.samplers.velocity import VelocityABM

__all__ = [
    "DDIM",
    "RK2",
    "RK4",
    "RK45",
    "AdaptiveFlow",
    "AmbientLangevin",
    "Ancestral",
    "Consistency",
    "DaleLangevin",
    "DalePaper",
    "Despeckler",
    "DiffusersSampler",
    "EqualTimes",
    "EulerMaruyama",
    "ExponentialAB",
    "ExponentialABM",
    "Fit",
    "FittedLevels",
    "FlowTime",
    "GammaObservation",
    "Grid",
    "Heun",
    "Jumps",
    "Karras",
    "Levels",
    "Likelihood",
    "LocalDimension",
    "LogLinear",
    "ODESolver",
    "OpenEnd",
    "PixelObservation",
    "PoissonObservation",
    "PowerTime",
    "PredictorCorrector",
    "Quantised",
    "Sampler",
    "SamplerScheduler",
    "SplitGibbs",
    "Tiled",
    "TimeTravel",
    "UniformTime",
    "VelocityABM",
    "dale_langevin_step",
    "decode",
    "edit",
    "encode",
    "interpolate",
    "local_dimension",
    "log_likelihood",
    "log_moments",
    "slerp",
    "speckle",
    "variance_preserving",
]
