r"""A small network with layer normalisation and random data, for the tests of step-wise variation."""

import math

import torch
from torch import nn

from scoregen.losses import (
    DenoisingScoreMatching,
    UniformTime,
)
from scoregen.losses.jacobian import Witness
from scoregen.models import Denoiser
from scoregen.rng import generators, randn
from scoregen.sde import VP

B, D = 5, 3
LEVELS = UniformTime()
QUANTILE = torch.tensor([0.02, 0.3, 0.5, 0.8, 0.98], dtype=torch.float64)


class Net(nn.Module):
    r"""A network with layer normalisation, labels with a null class, and dropout."""

    def __init__(self, num_classes=None, dropout=0.0):
        super().__init__()
        self.num_classes = num_classes
        self.into, self.normed, self.out_of = nn.Linear(D + 1, 8), nn.LayerNorm(8), nn.Linear(8, D)
        self.label = nn.Embedding((num_classes or 0) + 1, 8)
        self.dropout = nn.Dropout(dropout)

    def forward(self, z, c_noise, label=None):
        h = self.into(torch.cat([z, c_noise[:, None]], 1))
        if label is not None:
            h = h + self.label(torch.where(label < 0, self.num_classes, label))
        return self.out_of(self.dropout(self.normed(h).tanh()))


def denoiser(sde=None, num_classes=None, dropout=0.0):
    torch.manual_seed(0)
    return Denoiser(Net(num_classes, dropout), sde or VP(), prediction="edm").double()


def data(n=B, seed=0):
    return torch.rand(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draws(n=B, step=0):
    return generators(0, 1, step, range(n))


def witnessed(model, estimator, label=None):
    r"""The points of a base loss and |J_u^T v| there, with v."""
    witness = Witness(model, estimator)
    DenoisingScoreMatching(LEVELS)(witness, data(), label, draws(), QUANTILE)
    g = generators(7, 1, 0, range(B))
    v = randn((B, D), generators(7, 1, 0, range(B)), torch.float64) / math.sqrt(D)
    return witness, estimator.norm(witness, g), v


def jacobians(model, u, s, label=None):
    def one(point, i):
        chosen = None if label is None else label[i : i + 1]
        return model(point[None], s[i : i + 1], chosen)[0]

    return torch.stack([torch.func.jacrev(lambda point, i=i: one(point, i))(u[i].detach()) for i in range(B)])


def aimed(loss, a=0.5):
    r"""The loss with a running mean, as after a first step."""
    loss.a.fill_(a)
    return loss
