r"""Two-dimensional point sets, to see a process at work in seconds."""

import math

import torch

from scoregen import checks
from scoregen.data.base import ArrayDataset, Held, Source
from scoregen.data.parts import AUTO


class Toy2D(Source):
    r"""Two interleaved half circles with a little noise, standardised to about unit scale, (2,).

    Args:
        n: number of points, >= 10; a tenth is the test part.
        noise: standard deviation of the noise around the circles, >= 0.
        seed: seed of the points.
        test, validation: which data are these parts, as in `Source`.

    Raises:
        ValueError: values out of range.
    """

    name = "toy2d"
    range = None
    num_classes = 2

    def __init__(
        self, n: int = 20_000, noise: float = 0.05, seed: int = 0, test: Held = AUTO, validation: Held = AUTO
    ) -> None:
        super().__init__(test=test, validation=validation)
        checks.whole(10, n=n)
        checks.at_least(0, noise=noise)
        self.n, self.noise, self.seed = int(n), noise, seed

    def load(self, train: bool) -> ArrayDataset:
        generator = torch.Generator().manual_seed(self.seed)
        label = torch.randint(0, 2, (self.n,), generator=generator)
        angle = math.pi * torch.rand(self.n, generator=generator)
        side = 1.0 - 2.0 * label
        x = torch.stack([side * angle.cos() + label - 0.5, side * angle.sin() + 0.5 * label - 0.25], dim=1)
        x = x + self.noise * torch.randn(x.shape, generator=generator)
        held_out = self.n // 10
        part = slice(held_out, None) if train else slice(0, held_out)
        return ArrayDataset(x[part], label[part])
