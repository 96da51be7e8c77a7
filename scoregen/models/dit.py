r"""A diffusion transformer on the pixels of images: diffusers' `DiTTransformer2DModel`, without an autoencoder.

Reference: Peebles, Xie (2023), "Scalable diffusion models with transformers", arXiv 2212.09748.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import whole
from scoregen.models.adapter import DiffusersNetwork, import_diffusers
from scoregen.models.arguments import check_options, image_shape
from scoregen.models.mlp import label_or_null

# timesteps a unit of c_noise: the embedding of diffusers is made for a range of about 1000
_TIMES = {"log": 400.0, "index": 1.0, "flow": 1000.0}


class DiT(nn.Module):
    r"""A transformer over patches of an image, with adaptive layer norms that are told the noise and the label.

    Images of other sides than whole patches, or that are not square, are padded by zeros and cropped again.

    Args:
        shape: shape of an image, (C, H, W).
        patch_size: pixels a side of a patch.
        width: channels; a multiple of heads.
        depth: blocks.
        heads: number of heads of the attention.
        num_classes: labels 0..num_classes-1, with one more embedding for "no label"; None for unconditional.
        dropout: probability inside the blocks.

    Raises:
        ValueError: values that do not fit.
    """

    compiled_parts: ClassVar[tuple[str, ...]] = ("net",)

    def __init__(
        self,
        shape: tuple[int, ...],
        patch_size: int = 2,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        num_classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape = image_shape(shape)
        whole(1, patch_size=patch_size, width=width, depth=depth, heads=heads)
        check_options(num_classes, dropout)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got width={width}, heads={heads}.")
        self.patch_size, self.width, self.depth, self.heads = patch_size, width, depth, heads
        self.num_classes, self.dropout, self.time_scale = num_classes, dropout, _TIMES["log"]
        self.side = -(-max(self.shape[1:]) // patch_size) * patch_size
        config = {
            "num_attention_heads": heads,
            "attention_head_dim": width // heads,
            "in_channels": self.shape[0],
            "out_channels": self.shape[0],
            "num_layers": depth,
            "dropout": dropout,
            "sample_size": self.side,
            "patch_size": patch_size,
            "num_embeds_ada_norm": num_classes or 1,
            "norm_num_groups": 1,
        }
        self.net = DiffusersNetwork("DiTTransformer2DModel", config, self.shape).model
        self._start()

    def _start(self) -> None:
        r"""The start of the reference: each block is the identity, and the output is 0."""
        net: Any = self.net
        for block in net.transformer_blocks:
            nn.init.zeros_(block.norm1.linear.weight)
            nn.init.zeros_(block.norm1.linear.bias)
        for layer in (net.proj_out_1, net.proj_out_2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def tell_time(self, time: str) -> None:
        r"""Called by a denoiser: suit the embedding of c_noise to how the noise is told (`Denoiser.time`)."""
        self.time_scale = _TIMES[time]

    @staticmethod
    def import_parts() -> Any:
        r"""The package of the network, imported late since that takes seconds."""
        return import_diffusers()

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        r"""z (B, C, H, W), c_noise (B,), label (B,) or None -> (B, C, H, W)."""
        height, width = z.shape[-2:]
        z = functional.pad(z, (0, self.side - width, 0, self.side - height))
        if self.num_classes is None:
            classes = torch.zeros(z.shape[0], dtype=torch.int64, device=z.device)
        else:
            classes = label_or_null(label, z.shape[0], self.num_classes, z.device)
        output: Tensor = self.net(z, c_noise * self.time_scale, class_labels=classes, return_dict=False)[0]
        return output[..., :height, :width]
