r"""Training on images with Gaussian noise alone: splitting, and generative training above the noise."""

import math

import pytest
import torch
from torch import nn

from scoregen.errors import UserError
from scoregen.losses import AmbientScoreMatching, DenoisingScoreMatching, GaussianSplit, LogNormal, LogUniform
from scoregen.models import MLP, Denoiser
from scoregen.rng import generator, randn
from scoregen.sde import EDM, Affine, Multiplicative
from scoregen.training import Trainer

N = 200_000
SDE = EDM(0.002, 20.0, chart=Affine(2.0, -1.0))
V, SIGMA = 0.36, 0.1  # variance of y_0, and noise in data units: 0.2 in model coordinates
S = 0.2


class Scaled(nn.Module):
    r"""D = gain(s) u, the exact denoiser of y_0 ~ N(0, V), with a constant and a slope for each sample."""

    num_classes, sigma_data = None, 0.6

    def __init__(self, batch: int, gain=lambda s: V / (V + s**2), sde=SDE) -> None:
        super().__init__()
        self.gain, self.sde = gain, sde
        self.constant, self.slope = (nn.Parameter(torch.zeros(batch, 1, dtype=torch.float64)) for _ in range(2))

    def forward(self, u, s, label=None):
        return self.gain(s)[:, None] * u + self.constant + self.slope * u


def noisy() -> torch.Tensor:
    r"""(400, 500) data with noise, of y_0 ~ N(0, V)."""
    y = torch.randn(400, 500, generator=generator(0), dtype=torch.float64) * (V + S**2) ** 0.5
    return SDE.from_chart(y)


def gradients(loss, model, x) -> list[float]:
    r"""The gradient of the mean loss, in standard errors over samples, by parameter."""
    total = loss(model, x, generator=generator(1)).sum()
    each = torch.cat(torch.autograd.grad(total, [model.constant, model.slope]), 1)
    return (each.mean(0).abs() / (each.std(0) / len(x) ** 0.5)).tolist()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_the_parts_have_their_variances_and_no_covariance(fraction):
    x = torch.full((1, N), 0.5, dtype=torch.float64) + SIGMA * randn((1, N), generator(2), torch.float64)
    found = GaussianSplit(SIGMA).halves(SDE, x, torch.tensor([fraction], dtype=torch.float64), generator(3))
    for y, noise, share in ((found.u, found.s, 1 - fraction), (found.target, found.noise, fraction)):
        assert noise.item() == pytest.approx(S / math.sqrt(share))
        assert abs(y.mean().item()) < 5 * noise.item() / N**0.5
        assert y.var().item() == pytest.approx(noise.item() ** 2, rel=5 * (2 / N) ** 0.5)
    pair = torch.cat([found.u, found.target])
    assert abs(pair.corrcoef()[0, 1].item()) < 5 / N**0.5


def test_the_trainer_refuses_a_denoiser_that_is_not_told_the_least_noise():
    loss, net = GaussianSplit(SIGMA), MLP([2], width=8, depth=1)
    with pytest.raises(UserError, match=r"model.least_s: GaussianSplit trains noise ratios from .*, got 0. Give"):
        Trainer(1).check(Denoiser(net, SDE), loss)
    Trainer(1).check(Denoiser(net, SDE, least_s=loss.least_s(SDE)), loss)
    Trainer(1).check(Denoiser(net, SDE), DenoisingScoreMatching())


@pytest.mark.parametrize(
    "loss", [GaussianSplit(SIGMA), AmbientScoreMatching(SIGMA, LogNormal(-1.0, 0.3))], ids=["split", "ambient"]
)
def test_the_minimiser_is_the_posterior_mean(loss):
    r"""Its gradient vanishes at D = E[y_0 | u] for all levels together: 5 standard errors. The denoiser of the noisy
    images, which both would learn from targets that share the noise of u, is 20 and more of them off."""
    x = noisy()
    exact, of_noisy = Scaled(len(x)), Scaled(len(x), lambda s: (V + S**2) / (V + s**2))
    assert max(gradients(loss, exact, x)) < 5
    assert max(gradients(loss, of_noisy, x)) > 20


def test_ambient_levels_lie_above_the_noise_of_the_data():
    seen = []

    class Sees(Scaled):
        def forward(self, u, s, label=None):
            seen.append((u, s))
            return super().forward(u, s, label)

    x = noisy()
    AmbientScoreMatching(SIGMA, LogUniform())(Sees(len(x)), x, generator=generator(1))
    ((u, s),) = seen
    assert s.min().item() == pytest.approx(1.01 * S)
    square = u.square().mean(1) / (V + s**2)  # u has the noise ratio that the network is told
    assert abs(square.mean().item() - 1) < 5 * (2 / u.numel()) ** 0.5


@pytest.mark.parametrize("loss", [GaussianSplit(SIGMA), AmbientScoreMatching(SIGMA)], ids=["split", "ambient"])
def test_processes_that_do_not_suit_are_refused(loss):
    with pytest.raises(TypeError, match=r"needs an additive process, got Multiplicative .*loss=speckle_split"):
        loss.begin(Scaled(1, sde=Multiplicative(EDM())))
    with pytest.raises(ValueError, match=r"must lie within those of the process, 0\.002 to 0\.1\. Give a"):
        loss.begin(Scaled(1, sde=EDM(0.002, 0.1, chart=Affine(2.0, -1.0))))


def test_the_least_level_is_the_least_noise_that_is_drawn():
    split, ambient = GaussianSplit(SIGMA, split=(0.2, 0.5)), AmbientScoreMatching(SIGMA, LogUniform())
    assert split.least_s(SDE) == pytest.approx(S / 0.8**0.5)
    assert ambient.least_s(SDE) == pytest.approx(1.01 * S)
    found = split.halves(SDE, noisy()[:1], torch.tensor([0.2], dtype=torch.float64), generator(0))
    assert found.s.item() == pytest.approx(split.least_s(SDE))
