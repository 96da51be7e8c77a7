r"""Certified robustness by randomized smoothing."""

from scoregen.smoothing.anisotropic_noise import AnisotropicGaussian
from scoregen.smoothing.certificate import ABSTAIN, Certificate
from scoregen.smoothing.dual import DualSmoothing
from scoregen.smoothing.explanations import Explanation
from scoregen.smoothing.label_sampling import SampledLabels
from scoregen.smoothing.multiplicative_noise import LogNormal, LogNormalGain, LogNormalGamma
from scoregen.smoothing.noise import AbstractNoise, Gaussian, Laplace, Uniform
from scoregen.smoothing.preparation import ClassifierInput, Normalized, Resized
from scoregen.smoothing.purify import PurifiedClassifier
from scoregen.smoothing.selector_targets import best_sigma
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier

__all__ = [
    "ABSTAIN",
    "AbstractNoise",
    "AnisotropicGaussian",
    "Certificate",
    "ClassifierInput",
    "DualSmoothing",
    "Explanation",
    "Gaussian",
    "Laplace",
    "LogNormal",
    "LogNormalGain",
    "LogNormalGamma",
    "Normalized",
    "PurifiedClassifier",
    "Resized",
    "SampledLabels",
    "SmoothedClassifier",
    "Uniform",
    "best_sigma",
]
