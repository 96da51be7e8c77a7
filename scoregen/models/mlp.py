r"""A residual multilayer perceptron for vectors."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import refuse, whole
from scoregen.models.arguments import check_options
from scoregen.models.fourier import fourier_features
from scoregen.models.next_level import NextLevel


class MLP(nn.Module):
    r"""Residual blocks h + W SiLU(V SiLU(h) + time) between two linear maps; the last one starts at zero.

    Args:
        shape: shape of a sample, (D,).
        width: hidden units (even).
        depth: number of residual blocks.
        num_classes: labels 0..num_classes-1, with one more embedding for "no label"; None for unconditional.
        dropout: probability inside the blocks.
        next_level: whether it is told the level that a jump goes to, for a flow map.

    Raises:
        ValueError: a shape that is no vector's, values out of range.
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
        super().__init__()
        if len(shape) != 1:
            raise ValueError(f"shape must be (D,) for an MLP, got {tuple(shape)}. Use a U-Net for images.")
        if width < 2 or width % 2:
            refuse("width", "be even and >= 2", width)
        whole(1, depth=depth)
        check_options(num_classes, dropout)
        self.shape, self.width, self.depth = tuple(shape), width, depth
        self.num_classes, self.dropout, self.next_level = num_classes, dropout, next_level
        self.first = nn.Linear(shape[0], width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None
        self.into = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.out_of = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, shape[0])
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.next = NextLevel(width) if next_level else None

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None, gap: Tensor | None = None) -> Tensor:
        r"""z (B, D), c_noise (B,), label (B,) or None, gap (B,) or None -> (B, D)."""
        return self.through(self.first(z), c_noise, label, gap)

    def through(self, h: Tensor, c_noise: Tensor, label: Tensor | None = None, gap: Tensor | None = None) -> Tensor:
        r"""All that follows the first map: h (B, width) -> (B, D); the others as of `forward`."""
        condition = self.time(fourier_features(c_noise, self.width).to(h))
        if self.label is not None and self.num_classes is not None:
            condition = condition + self.label(label_or_null(label, h.shape[0], self.num_classes, h.device))
        if self.next is not None and gap is not None:
            condition = condition + self.next(gap)
        for into, out_of in zip(self.into, self.out_of, strict=True):
            inner = functional.silu(into(functional.silu(h)) + condition)
            h = h + out_of(functional.dropout(inner, self.dropout, self.training))
        output: Tensor = self.last(functional.silu(h))
        return output


def label_or_null(label: Tensor | None, batch: int, num_classes: int, device: torch.device) -> Tensor:
    r"""The labels, or the index num_classes ("no label") for all of the batch; negative labels mean "no label" too.

    Raises:
        ValueError: a label of num_classes or more (on an accelerator, where looking would wait, the embedding raises).
    """
    if label is None:
        return torch.full((batch,), num_classes, device=device, dtype=torch.long)
    if label.device.type == "cpu" and not torch.compiler.is_compiling() and bool((label >= num_classes).any()):
        raise ValueError(
            f"label must lie below num_classes={num_classes}, or be -1 for none, got {label.max().item()}."
        )
    return torch.where(label < 0, num_classes, label + (label == num_classes)).to(device)
