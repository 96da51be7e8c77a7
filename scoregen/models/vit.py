r"""A vision transformer that sees an image at a noise level: encoder of representations and classifier under noise.

    u = y + t eps,  y = 2 x - 1
    c_in(t) u -> patches -> [class token][time token][patches] + positions -> pre-norm attention blocks -> norm
    = class token = representation(u, t);   time token: sinusoids of 250 ln t,   c_in = 1/sqrt(t^2 + 1/4)

An image x in [0, 1] with noise of standard deviation sigma is u at t = 2 sigma, exactly. So one network serves all
stages: it is pre-trained over all t, and certified at one sigma with one call a vote.

Reference: Lei et al. (2025), arXiv 2501.13094, section 3; Dosovitskiy et al. (2021), arXiv 2010.11929.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import inside, positive, whole
from scoregen.models.arguments import image_shape
from scoregen.models.projector import Projector

_SIGMA_DATA, _TIME_SCALE = 0.5, 250.0
_PARTS = ("encoder", "projector", "head")


class ViT(nn.Module):
    r"""The encoder: (u, t) -> class token.

    Args:
        shape: shape of one image, (C, H, W); sides that are no multiple of the patch are padded with grey.
        patch_size: side of a patch, in pixels.
        width: width of a token, a multiple of `heads` and of 2. depth: attention blocks.
        heads: number of heads of each block. mlp_ratio: hidden width of a block's perceptron, over `width`.
        dropout: in the blocks.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        patch_size: int = 4,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape, self.patch_size, self.width, self.depth = image_shape(shape), patch_size, width, depth
        self.heads, self.mlp_ratio, self.dropout = heads, mlp_ratio, dropout
        inside(1, min(self.shape[1:]), patch_size=patch_size)
        whole(1, depth=depth, heads=heads)
        if width < 2 or width % heads or width % 2:
            raise ValueError(f"width must be an even multiple of heads, got width={width}, heads={heads}.")
        positive(mlp_ratio=mlp_ratio)
        inside(0, 1, "[)", dropout=dropout)
        rows, columns = (-(-side // patch_size) for side in self.shape[1:])
        self.patches = nn.Conv2d(self.shape[0], width, patch_size, patch_size)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.7 * torch.randn(1, 2 + rows * columns, width))  # the scale of the tokens
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, round(mlp_ratio * width), dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, u: Tensor, t: Tensor | float) -> Tensor:
        r"""The class token (B, width).

        Args:
            u: (B, C, H, W), data in [-1, 1] plus noise of standard deviation t.
            t: > 0, () or (B,).
        """
        if tuple(u.shape[1:]) != self.shape:
            raise ValueError(f"images must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(u.shape)}.")
        t = torch.as_tensor(t, dtype=None if isinstance(t, Tensor) else torch.float64)
        t = t.to(torch.float32 if t.device.type == "mps" else torch.float64).expand(len(u))  # no float64 on MPS
        looks = t.device.type == "cpu" and not torch.compiler.is_compiling()  # elsewhere looking would wait
        if looks and not bool(((t > 0) & t.isfinite()).all()):
            raise ValueError(f"t must be positive and finite, got values from {t.min():.4g} to {t.max():.4g}.")
        c_in = (t.square() + _SIGMA_DATA**2).rsqrt().to(u)
        down, right = (-side % self.patch_size for side in self.shape[1:])
        patches = self.patches(functional.pad(c_in[:, None, None, None] * u, (0, right, 0, down)))
        tokens = [
            self.class_token.expand(len(u), -1, -1),
            time_embedding(t, self.width).to(patches)[:, None],
            patches.flatten(2).transpose(1, 2),
        ]
        x = torch.cat([token.to(patches.dtype) for token in tokens], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        token: Tensor = self.norm(x[:, 0])
        return token


class ViTClassifier(nn.Module):
    r"""The encoder with a projector, for pre-training, and a head: logits of images with noise of one level.

        Every stage trains some parts and keeps the others frozen in its checkpoint, from which the next stage starts:
        pre-training learns encoder and projector, a linear probe the head, fine-tuning encoder and head.

    Args:
        shape: shape of one image, (C, H, W). num_classes: K >= 2.
        noise_sigma: standard deviation of the noise on x in [0, 1] that the logits are for, > 0; the time is twice it.
        patch_size, width, depth, heads, mlp_ratio, dropout: of the `ViT`.
        hidden, projection: widths of the projector.
        trainable: the parts that learn, of encoder, projector and head.

    Raises:
        ValueError: an argument is out of range.
    """

    compiled_parts: ClassVar[tuple[str, ...]] = _PARTS

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        noise_sigma: float = 0.5,
        patch_size: int = 4,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        hidden: int = 256,
        projection: int = 256,
        trainable: Sequence[str] = ("encoder", "head"),
    ) -> None:
        super().__init__()
        whole(2, num_classes=num_classes)
        whole(1, hidden=hidden, projection=projection)
        positive(noise_sigma=noise_sigma)
        if not trainable or not set(trainable) <= set(_PARTS):
            raise ValueError(f"trainable must name some of {', '.join(_PARTS)}, got {list(trainable)}.")
        self.encoder = ViT(shape, patch_size, width, depth, heads, mlp_ratio, dropout)
        self.projector = Projector(width, hidden, projection)
        self.head = nn.Linear(width, num_classes)
        self.shape, self.num_classes, self.noise_sigma = self.encoder.shape, num_classes, noise_sigma
        self.patch_size, self.width, self.depth, self.heads = patch_size, width, depth, heads
        self.mlp_ratio, self.dropout, self.hidden, self.projection = mlp_ratio, dropout, hidden, projection
        self.trainable, self.num_features = tuple(trainable), width
        for name in _PARTS:
            getattr(self, name).requires_grad_(name in trainable)

    @staticmethod
    def to_chart(x: Tensor) -> Tensor:
        r"""Images in [0, 1] to the encoder's [-1, 1]."""
        return 2 * x - 1

    def represent(self, u: Tensor, t: Tensor | float) -> Tensor:
        r"""The class token (B, width) of u = y + t eps (B, C, H, W)."""
        token: Tensor = self.encoder(u, t)
        return token

    def project(self, representation: Tensor) -> Tensor:
        r"""Projections (B, projection) of class tokens (B, width)."""
        projected: Tensor = self.projector(representation)
        return projected

    def features(self, x: Tensor) -> Tensor:
        r"""The class token (B, width) of images with noise of `noise_sigma`."""
        return self.represent(self.to_chart(x), 2 * self.noise_sigma)

    def classify(self, features: Tensor) -> Tensor:
        r"""Logits (B, K) of class tokens (B, width)."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        r"""Logits (B, K) of images (B, C, H, W), in [0, 1] plus noise of `noise_sigma`."""
        return self.classify(self.features(x))

    def layers(self) -> list[list[nn.Parameter]]:
        r"""The parameters from the input to the head, layer by layer, for rates that decay with the depth."""
        encoder = self.encoder
        first = [*encoder.patches.parameters(), encoder.class_token, encoder.positions]
        blocks = [list(block.parameters()) for block in encoder.blocks]
        return [first, *blocks, [*encoder.norm.parameters(), *self.projector.parameters(), *self.head.parameters()]]


def time_embedding(t: Tensor, width: int) -> Tensor:
    r"""cos and sin of 250 ln t at width/2 frequencies from 1 to 1e-4, geometric; (B, width) float64 for t (B,)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=t.dtype, device=t.device) / half)
    angle = _TIME_SCALE * t.log()[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=1)
