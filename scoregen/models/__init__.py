r"""Denoisers and the networks inside them."""

from scoregen.models.denoiser import AbstractDenoiser, Denoiser
from scoregen.models.mlp import MLP
from scoregen.models.unet import UNet

__all__ = ["MLP", "AbstractDenoiser", "Denoiser", "UNet"]
