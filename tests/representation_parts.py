r"""Two views of data, for the tests of representations."""

import torch

from scoregen.data import Augmentation

TAU = 0.2


def two_sets(n=5, d=3):
    g = torch.Generator().manual_seed(0)
    return (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))


class Same(Augmentation):
    def __call__(self, x, generator):
        return x


class Half(Augmentation):
    def __call__(self, x, generator):
        return x / 2
