r"""The denoiser of tables: numbers and categories by one D(u, s) = E[y_0 | u].

A row is y = (numbers, one-hots of the categories), u = y + s eps. Numbers are as in EDM. A category of K is K one-hot
coordinates, with

    D = softmax(l),    l_k = F_k + u_k / s^2

which is the vector of its posterior probabilities, and so exactly E[y_0 | u]: u_k/s^2 is the log-likelihood of category
k by its own coordinates, up to a constant, and F_k learns log p(k | the rest of u). Coordinates of u that are nan are
not observed; D is nan there for numbers.

Reference: Mueller, Gruber, Fok (2023), arXiv 2312.10431 (score interpolation on one-hot categories); Karras et al.
(2022), arXiv 2206.00364, table 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scoregen.checks import positive, whole
from scoregen.models.denoiser import AbstractDenoiser, evaluate, shape_of
from scoregen.models.mlp import MLP
from scoregen.sde.path import as_time, expand
from scoregen.sde.process import SDE


class TableDenoiser(AbstractDenoiser):
    r"""A network with preconditioning, for rows of numbers and categories.

    Args:
        network: (z, c_noise, label) -> tensor like z; z (B, D) may be nan.
        sde: the process.
        numbers: coordinates that are numbers, which come first.
        sizes: lengths of the one-hots that follow.
        sigma_data: standard deviation of the numbers in model coordinates.

    Raises:
        ValueError: values out of range, or coordinates of another number than the network's.

    Reference: Mueller, Gruber, Fok (2023), arXiv 2312.10431.
    """

    def __init__(
        self, network: nn.Module, sde: SDE, numbers: int, sizes: Sequence[int], sigma_data: float = 0.5
    ) -> None:
        super().__init__()
        positive(sigma_data=sigma_data)
        whole(0, numbers=numbers)
        for size in sizes:
            whole(2, sizes=size)
        self.network, self.sde = network, sde
        self.numbers, self.sizes, self.sigma_data = int(numbers), [int(size) for size in sizes], float(sigma_data)
        shape = shape_of(network)
        if shape is not None and shape != (self.numbers + sum(self.sizes),):
            raise ValueError(
                f"numbers and sizes must have the {shape} coordinates of the network, got {numbers} and {list(sizes)}."
            )

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        numbers, logits = self.parts(u, s, label)
        return torch.cat([numbers, *(part.softmax(1) for part in logits)], 1)

    def parts(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        r"""D of the numbers (B, numbers), and the logits of each category (B, K).

        Args:
            u: (B, D), nan where it is not observed. s: noise ratio, () or (B,). label: (B,) integers or None.
        """
        s = as_time(s)
        square = s**2 + self.sigma_data**2
        output = evaluate(self.network, expand(square.rsqrt(), u) * u, s.log() / 4, label)
        u_n, u_k = u[:, : self.numbers], u[:, self.numbers :]
        skip, out = self.sigma_data**2 / square, s * self.sigma_data / square.sqrt()
        numbers = expand(skip, u_n) * u_n + expand(out, u_n) * output[:, : self.numbers]
        logits = output[:, self.numbers :] + torch.where(u_k.isnan(), 0.0, u_k) * expand(s**-2, u_k)
        return numbers, list(torch.split(logits, self.sizes, 1)) if self.sizes else []


class TableMLP(MLP):
    r"""A residual perceptron that is told which coordinates are missing: those that are nan.

    Args:
        shape: shape of a sample, (D,).
        width: hidden units (even).
        depth: number of residual blocks.
        num_classes: labels 0..num_classes-1, with one more embedding for "no label"; None for unconditional.
        dropout: probability inside the blocks.

    Raises:
        ValueError: a shape that is no vector's, values out of range.

    Reference: Ouyang et al. (2023), arXiv 2307.00467 (training on what is observed).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 256,
        depth: int = 4,
        num_classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(shape, width, depth, num_classes, dropout)
        self.absent = nn.Linear(shape[0], width, bias=False)

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None, gap: Tensor | None = None) -> Tensor:
        r"""z (B, D) with nan where it is missing, c_noise (B,), label (B,) or None -> (B, D); no gap."""
        missing = z.isnan()
        return self.through(self.first(torch.where(missing, 0.0, z)) + self.absent(missing.to(z)), c_noise, label)
