r"""Denoisers and the networks inside them."""

from scoregen.models.adapter import from_diffusers
from scoregen.models.clamp import Clamp
from scoregen.models.classifier import Classifier
from scoregen.models.denoiser import AbstractDenoiser, Denoiser
from scoregen.models.guidance import Autoguidance, ClassifierFreeGuidance
from scoregen.models.inverse import PiGDM, Replacement
from scoregen.models.mlp import MLP
from scoregen.models.observation import Inpainting, LinearObservation, MatrixObservation, Observation
from scoregen.models.unet import UNet
from scoregen.models.wrapper import DenoiserWrapper

__all__ = [
    "MLP",
    "AbstractDenoiser",
    "Autoguidance",
    "Clamp",
    "Classifier",
    "ClassifierFreeGuidance",
    "Denoiser",
    "DenoiserWrapper",
    "Inpainting",
    "LinearObservation",
    "MatrixObservation",
    "Observation",
    "PiGDM",
    "Replacement",
    "UNet",
    "from_diffusers",
]
