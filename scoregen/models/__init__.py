r"""Denoisers and the networks inside them."""

from scoregen.models.adapter import DiffusersNetwork
from scoregen.models.autoencoder import Autoencoder, Latent
from scoregen.models.clamp import Clamp
from scoregen.models.classifier import Classifier
from scoregen.models.denoiser import AbstractDenoiser, Denoiser
from scoregen.models.dit import DiT
from scoregen.models.flat import FlatMLP
from scoregen.models.guidance import Autoguidance, ClassifierFreeGuidance
from scoregen.models.interop import from_diffusers
from scoregen.models.inverse import PiGDM, Replacement
from scoregen.models.latent_denoiser import LatentDenoiser
from scoregen.models.latent_diffusion import LatentDiffusion
from scoregen.models.lora import LoRA, merge_adapters
from scoregen.models.mlp import MLP
from scoregen.models.noprop import LabelDenoiser, LabelNetwork, NoPropClassifier
from scoregen.models.observation import Inpainting, LinearObservation, MatrixObservation, Observation
from scoregen.models.protocol import DenoiserLike, FlowMapLike
from scoregen.models.raw import RawDenoiser
from scoregen.models.table import TableDenoiser, TableMLP
from scoregen.models.unet import UNet
from scoregen.models.vit import ViT, ViTClassifier
from scoregen.models.wrapper import DenoiserWrapper

__all__ = [
    "MLP",
    "AbstractDenoiser",
    "Autoencoder",
    "Autoguidance",
    "Clamp",
    "Classifier",
    "ClassifierFreeGuidance",
    "Denoiser",
    "DenoiserLike",
    "DenoiserWrapper",
    "DiT",
    "DiffusersNetwork",
    "FlatMLP",
    "FlowMapLike",
    "Inpainting",
    "LabelDenoiser",
    "LabelNetwork",
    "Latent",
    "LatentDenoiser",
    "LatentDiffusion",
    "LinearObservation",
    "LoRA",
    "MatrixObservation",
    "NoPropClassifier",
    "Observation",
    "PiGDM",
    "RawDenoiser",
    "Replacement",
    "TableDenoiser",
    "TableMLP",
    "UNet",
    "ViT",
    "ViTClassifier",
    "from_diffusers",
    "merge_adapters",
]
