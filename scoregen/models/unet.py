r"""diffusers' `UNet2DModel` behind the network interface (z, c_noise, label)."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import whole
from scoregen.models.arguments import check_options, image_shape
from scoregen.models.mlp import label_or_null
from scoregen.models.next_level import NextLevel

# how a denoiser tells the noise: timesteps a unit of c_noise, as diffusers' schedulers hand them over, and the largest
# frequency of the embedding; None: diffusers' own frequencies, 1 to 1e-4, for timesteps up to about 1000
_TIMES = {"log": (1.0, 50.0), "index": (1.0, None), "flow": (1000.0, None)}
_LOG_PERIOD = math.log(10_000)  # of diffusers' embedding


class UNet(nn.Module):
    r"""A U-Net for images of any size and number of channels.

    Sides that the levels do not divide are padded by reflection and cropped again. With a patch size p the network
    works on pixel-unshuffled images (C p^2, H/p, W/p), which is several times faster at equal quality on small grey
    images.

    Args:
        shape: shape of an image, (C, H, W).
        channels: width of each level.
        layers: residual blocks a level.
        attention: whether a level has self-attention, one flag a level; none if empty.
        num_classes: labels 0..num_classes-1, with one more embedding for "no label"; None for unconditional.
        dropout: probability inside the residual blocks.
        patch_size: p.
        next_level: whether it is told the level that a jump goes to, for a flow map.

    Raises:
        ValueError: shapes, channels or flags that do not fit.
    """

    compiled_parts: ClassVar[tuple[str, ...]] = ("net",)

    def __init__(
        self,
        shape: tuple[int, ...],
        channels: tuple[int, ...] = (32, 64),
        layers: int = 2,
        attention: tuple[bool, ...] = (),
        num_classes: int | None = None,
        dropout: float = 0.0,
        patch_size: int = 1,
        next_level: bool = False,
    ) -> None:
        super().__init__()
        self.shape = image_shape(shape)
        _check_levels(channels, attention)
        whole(1, layers=layers, patch_size=patch_size)
        _check_size(shape, len(channels), patch_size)
        check_options(num_classes, dropout)
        network = self.import_parts()  # diffusers leaves its networks without types
        self.channels, self.layers, self.attention = tuple(channels), layers, tuple(attention)
        self.num_classes, self.dropout, self.patch_size = num_classes, dropout, patch_size
        attention = self.attention or (False,) * len(channels)
        depth = shape[0] * patch_size**2
        self.multiple = _multiple(len(channels), patch_size)
        self.net = network(
            in_channels=depth,
            out_channels=depth,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
            add_attention=any(attention),
            norm_num_groups=math.gcd(*channels, 32),
            dropout=dropout,
            num_class_embeds=num_classes + 1 if num_classes else None,
        )
        self.tell_time("log")
        nn.init.zeros_(self.net.conv_out.weight)
        nn.init.zeros_(self.net.conv_out.bias)
        self.next_level = next_level
        self.next = NextLevel(4 * channels[0]) if next_level else None
        if next_level:
            self.net.class_embedding = _conditions(self.net.class_embedding)

    def tell_time(self, time: str) -> None:
        r"""Called by a denoiser: suit the embedding of c_noise to how the noise is told (`Denoiser.time`).

        log(s)/4 spans about 2.7, for which diffusers' frequencies are too low; with a shift they run from 1 upwards.
        """
        self.time_scale, top = _TIMES[time]
        half = self.channels[0] // 2
        shift = 0 if top is None else half + max(1, round((half - 1) * _LOG_PERIOD / math.log(top)))
        self.net.time_proj.downscale_freq_shift = shift
        self.net.register_to_config(freq_shift=shift)

    @staticmethod
    def import_parts() -> Any:
        r"""The class of the network, imported late since that takes seconds."""
        from scoregen.compat import repair_torchvision

        repair_torchvision()
        from diffusers import UNet2DModel

        return UNet2DModel

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None, gap: Tensor | None = None) -> Tensor:
        r"""z (B, C, H, W), c_noise (B,), label (B,) or None, gap (B,) or None -> (B, C, H, W)."""
        height, width = z.shape[-2:]
        z = functional.pad(z, (0, -width % self.multiple, 0, -height % self.multiple), mode="reflect")
        classes = self.num_classes
        label = None if classes is None else label_or_null(label, z.shape[0], classes, z.device)
        condition = label if self.next is None else self._condition(z, label, gap)
        z = functional.pixel_unshuffle(z, self.patch_size)
        z, *_ = self.net(z, c_noise * self.time_scale, class_labels=condition, return_dict=False)
        return functional.pixel_shuffle(z, self.patch_size)[..., :height, :width]

    def _condition(self, z: Tensor, label: Tensor | None, gap: Tensor | None) -> Tensor:
        r"""What is added to the embedding of the noise: that of the label and that of the next level."""
        told = z.new_zeros(1, 1) if label is None else self.net.class_embedding(label)
        return told if gap is None or self.next is None else told + self.next(gap)


class _Conditions(nn.Embedding):
    r"""diffusers' embedding of labels, which lets vectors that are embeddings already through."""

    def forward(self, given: Tensor) -> Tensor:
        return given if given.is_floating_point() else super().forward(given)


def _conditions(labels: nn.Embedding | None) -> nn.Module:
    if labels is None:
        return nn.Identity()
    found = _Conditions(labels.num_embeddings, labels.embedding_dim, _weight=labels.weight.detach())
    return found.train(labels.training)


def _multiple(levels: int, patch_size: int) -> int:
    r"""What the sides of an image are padded to a multiple of."""
    return int(patch_size * 2 ** (levels - 1))


def _check_levels(channels: Sequence[int], attention: Sequence[bool]) -> None:
    if len(channels) < 1 or min(channels) < 1:
        raise ValueError(f"channels must be widths >= 1 of at least one level, got channels={tuple(channels)}.")
    if attention and len(attention) != len(channels):
        raise ValueError(
            f"attention must have one flag a level, got {len(attention)} flags for {len(channels)} levels."
        )


def _check_size(shape: Sequence[int], levels: int, patch_size: int) -> None:
    multiple = _multiple(levels, patch_size)
    if max(-side % multiple for side in shape[1:]) >= min(shape[1:]):
        raise ValueError(
            f"images of {shape[1]}x{shape[2]} are too small for {levels} levels and patch_size={patch_size}. Use fewer."
        )
