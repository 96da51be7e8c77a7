r"""Bits per dimension of images with discrete levels, from a density of dequantised images.

    level k in {0, ..., L-1} becomes  x = (k + u) w / L,  u ~ U[0, 1)^d,  on an interval of width w
    -log2 P(k) <= E_u[-log2 p(x)] + d log2(L / w)

so bits/dim = -log2(e) log p(x) / d + log2(L / w): + 8 for 8-bit images in [0, 1], + 7 in [-1, 1].
"""

import math

from torch import Tensor

from scoregen.checks import positive, whole
from scoregen.rng import Generators, rand


def bits_per_dim(log_prob: Tensor, dimensions: int, levels: int = 256, width: float = 1.0) -> Tensor:
    r"""Bits per dimension under uniform dequantisation: an upper bound of the discrete model's.

    Args:
        log_prob: log density of the dequantised images in nats, any shape, in the units that `width` describes
            (with the chart's log-determinant if the model has coordinates of its own).
        dimensions: values in an image, d.
        levels: discrete levels L of a number, 256 for 8 bits.
        width: length w of the interval that the levels fill: 1 for [0, 1], 2 for [-1, 1].

    Returns:
        bits per dimension, the shape of `log_prob`.

    Reference: Theis, van den Oord, Bethge (2016), arXiv 1511.01844, section 3.1.
    """
    whole(1, dimensions=dimensions)
    whole(2, levels=levels)
    positive(width=width)
    return -log_prob / (math.log(2) * dimensions) + math.log2(levels / width)


def dequantise(images: Tensor, generator: Generators = None, levels: int = 256) -> Tensor:
    r"""Uniform dequantisation x = (k + u)/L of images on the grid k/(L-1) in [0, 1].

    Args:
        images: (B, *S) in [0, 1].
        generator: None, one for the batch, or a list with one for each image.
        levels: L.
    """
    level = (images * (levels - 1)).round()
    return (level + rand(images.shape, generator, images.dtype, images.device)) / levels
