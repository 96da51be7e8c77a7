r"""A label denoiser in closed form and three normal classes, for the tests of NoProp."""

import torch
from torch import nn

from scoregen.models import NoPropClassifier
from scoregen.rng import generator
from scoregen.sde import VE, Affine, Cosine, RectifiedFlow

SIGNS = Affine(2.0, -1.0)
PATHS = {
    "ve": VE(0.05, 20.0, chart=SIGNS),
    "cosine": Cosine(chart=SIGNS),
    "rectified flow": RectifiedFlow(chart=SIGNS),
}


class Exact(nn.Module):
    r"""The posterior of the label for a p(k | x) in closed form, features being log p(k | x)."""

    shape, blocks = None, 1

    def __init__(self, log_p, classes: int, embedding=None) -> None:
        super().__init__()
        self.log_p, self.num_classes, self.calls = log_p, classes, 0
        self.embedding = 2 * torch.eye(classes, dtype=torch.float64) - 1 if embedding is None else embedding

    def features(self, x, block=0):
        self.calls += 1
        return self.log_p(x)

    def forward(self, features, z, c_noise, block=0):
        s = (4 * c_noise).exp()[:, None]
        u = z * (1 + s**2).sqrt()
        return features - (u[:, None] - self.embedding).square().sum(2) / (2 * s**2)


def exact(log_p, classes: int, steps: int | None = None, embedding=None, path=PATHS["ve"]) -> NoPropClassifier:
    classifier = NoPropClassifier(Exact(log_p, classes, embedding), path, steps)
    classifier.embedding = classifier.network.embedding
    return classifier.eval()


MEANS = torch.tensor([[0.0, 1.0], [-0.9, -0.5], [0.9, -0.5]], dtype=torch.float64)


def three_normals(x):
    r"""log p(k | x) of three normals in the plane, standard deviation .8."""
    return (-(x[:, None] - MEANS).square().sum(2) / (2 * 0.8**2)).log_softmax(1)


def points(n: int = 4000):
    g = generator(0)
    label = torch.randint(3, (n,), generator=g)
    return MEANS[label] + 0.8 * torch.randn(n, 2, generator=g, dtype=torch.float64), label
