r"""A multilayer perceptron on flattened images; on 8 x 8 images it trains in seconds."""

import math

from torch import Tensor

from scoregen.models.mlp import MLP


class FlatMLP(MLP):
    r"""`MLP` on samples of any shape, flattened.

    Args:
        shape: shape of a sample, (*S).
        width: hidden units (even).
        depth: number of residual blocks.
        num_classes: labels 0..num_classes-1, with one more embedding for "no label"; None for unconditional.
        dropout: probability inside the blocks.
        next_level: whether it is told the level that a jump goes to, for a flow map.

    Raises:
        ValueError: values out of range.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 128,
        depth: int = 3,
        num_classes: int | None = None,
        dropout: float = 0.0,
        next_level: bool = False,
    ) -> None:
        super().__init__((math.prod(shape),), width, depth, num_classes, dropout, next_level)
        self.shape = tuple(shape)

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None, gap: Tensor | None = None) -> Tensor:
        r"""z (B, *S), c_noise (B,), label (B,) or None, gap (B,) or None -> (B, *S)."""
        return super().forward(z.flatten(1), c_noise, label, gap).reshape(z.shape)
