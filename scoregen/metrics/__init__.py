r"""Measures of quality: numbers with the protocol that makes them comparable."""

from scoregen.metrics.bootstrap import Interval, frechet_interval
from scoregen.metrics.by_level import Information, Memorisation, information, memorisation
from scoregen.metrics.classes import ClassBalance, class_balance
from scoregen.metrics.evaluation import evaluate
from scoregen.metrics.extraction import extract_features
from scoregen.metrics.features import (
    CheckpointFeatures,
    ClassifierFeatures,
    FeatureExtractor,
    Pixels,
    RandomConvolution,
)
from scoregen.metrics.frechet import frechet_distance, frechet_distance_gaussian
from scoregen.metrics.inception import Inception
from scoregen.metrics.kernel import Estimate, energy_distance, kernel_distance
from scoregen.metrics.likelihood import bits_per_dim, dequantise
from scoregen.metrics.manifold import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from scoregen.metrics.measurement import Settings
from scoregen.metrics.moments import Moments
from scoregen.metrics.neighbours import NearestNeighbours, nearest_neighbours
from scoregen.metrics.reconstruction import (
    DDIMInversion,
    Reconstruction,
    reconstruction_error,
    reconstruction_sweep,
    ssim,
)
from scoregen.metrics.reference import reference_features
from scoregen.metrics.report import Number, Report
from scoregen.metrics.samples import read_samples
from scoregen.metrics.smoothness import Smoothness, constant_speed_path, istd
from scoregen.metrics.speckle import (
    EquivalentLooks,
    RatioImage,
    edge_preservation,
    equivalent_looks,
    ratio_image,
    ratio_statistics,
)
from scoregen.metrics.tables import evaluate_table

__all__ = [
    "CheckpointFeatures",
    "ClassBalance",
    "ClassifierFeatures",
    "DDIMInversion",
    "DensityCoverage",
    "EquivalentLooks",
    "Estimate",
    "FeatureExtractor",
    "Inception",
    "Information",
    "Interval",
    "Memorisation",
    "Moments",
    "NearestNeighbours",
    "Number",
    "Pixels",
    "PrecisionRecall",
    "RandomConvolution",
    "RatioImage",
    "Reconstruction",
    "Report",
    "Settings",
    "Smoothness",
    "bits_per_dim",
    "class_balance",
    "constant_speed_path",
    "density_coverage",
    "dequantise",
    "edge_preservation",
    "energy_distance",
    "equivalent_looks",
    "evaluate",
    "evaluate_table",
    "extract_features",
    "frechet_distance",
    "frechet_distance_gaussian",
    "frechet_interval",
    "information",
    "istd",
    "kernel_distance",
    "memorisation",
    "nearest_neighbours",
    "precision_recall",
    "ratio_image",
    "ratio_statistics",
    "read_samples",
    "reconstruction_error",
    "reconstruction_sweep",
    "reference_features",
    "ssim",
]
