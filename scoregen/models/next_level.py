r"""How a network is told the level r that a jump from the level s goes to: an embedding e(gap) - e(0), at first 0.

    tau = s/(c + s),   gap = 1 - tau_r/tau_s = c (s - r)/(s (c + r)) for r <= s, and its mirror image for r > s

The gap lies in [-1, 1]: 1 is a jump to the data, 0 none, and below 0 it leads to more noise. At gap 0 the embedding is
exactly 0, so that D(u, s, s) is the network without it; at the start that holds for every gap, since the last layer
starts at zero.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.models.fourier import fourier_features

_FEATURES = 64


class NextLevel(nn.Module):
    r"""e(gap) - e(0), a vector of `width` numbers.

    Args:
        width: width of the embedding that it is added to.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(_FEATURES, width)
        self.last = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, gap: Tensor) -> Tensor:
        r"""(B, width) of gaps (B,); exactly 0 where the gap is 0."""
        dtype = self.first.weight.dtype
        both = torch.stack([fourier_features(g, _FEATURES) for g in (gap, torch.zeros_like(gap))]).to(dtype)
        there, here = functional.silu(self.first(both)).unbind()
        moved: Tensor = self.last(there - here)
        return torch.where((gap == 0)[:, None], 0.0, moved)  # the two rows of one product may round differently


def gap_of(s: Tensor, r: Tensor, c: float) -> Tensor:
    r"""The gap of jumps from noise ratios s > 0 to r >= 0, shaped as both together."""
    low, high = torch.minimum(s, r), torch.maximum(s, r)
    return c * (s - r) / (high * (c + low))


def fresh_names(model: nn.Module) -> set[str]:
    r"""The names of the tensors of such embeddings in a model, which checkpoints of other models do not have."""
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, NextLevel)]
    return {f"{name}.{key}" for name, part in found for key in part.state_dict()}
