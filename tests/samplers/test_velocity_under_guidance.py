r"""Guidance of a large scale lowers the limit of VelocityABM, since the values of earlier steps mislead there."""

import math

import pytest
import torch
from torch import nn

from scoregen.models import Autoguidance, Clamp, ClassifierFreeGuidance, Inpainting, PiGDM, TableDenoiser, TableMLP
from scoregen.models.table_conditions import GivenCells
from scoregen.samplers import Karras, VelocityABM
from scoregen.samplers.base import Bound
from scoregen.sde import EDM

CENTRES = torch.randn(10, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
VARIANCE = 0.05**2
U = 80 * torch.randn(200, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Labelled(nn.Module):
    r"""The exact denoiser of ten normal laws; label 0 is the first three of them, -1 is all."""

    num_classes, sde = 1, EDM(0.002, 80.0)

    def forward(self, u, s, label=None):
        s = torch.as_tensor(s, dtype=u.dtype)
        total = VARIANCE + s**2
        logits = -(u[:, None] - CENTRES).square().sum(-1) / (2 * total)
        if label is not None:
            logits = torch.where((label[:, None] == 0) & (torch.arange(10) > 2), -torch.inf, logits)
        return logits.softmax(1) @ CENTRES * (s**2 / total) + VARIANCE / total * u


def end(scale, steps, limit=None, wrap=lambda guided: guided):
    denoise = Bound(wrap(ClassifierFreeGuidance(Labelled(), scale)), torch.zeros(len(U), dtype=torch.long))
    sampler = VelocityABM(steps, limit=limit)
    return sampler.integrate(denoise, U, Karras()(Labelled.sde, steps), torch.zeros_like)


@pytest.mark.parametrize("scale, limit", [(1.0, 10.0), (2.0, 10.0), (2.1, 2.0), (7.5, 2.0)])
def test_the_limit_follows_the_scale(scale, limit):
    assert torch.equal(end(scale, 8), end(scale, 8, limit))
    assert not torch.equal(end(scale, 8), end(scale, 8, 12.0 - limit))


def test_a_limit_that_is_given_stays():
    assert not torch.equal(end(7.5, 8, 10.0), end(7.5, 8))


def test_known_values_lower_the_limit_too():
    known = Inpainting(torch.zeros(1, 8), torch.arange(8) < 2)
    assert Bound(PiGDM(Labelled(), known, sigma_data=0.5), None).is_steep
    row = torch.tensor([[0.5, math.nan, math.nan]])
    table = TableDenoiser(TableMLP((3,), width=8, depth=1), EDM(0.002, 80.0), 1, [2])
    assert Bound(GivenCells(table, row), None).is_steep and not Bound(table, None).is_steep


def test_the_scale_is_found_inside_other_wrappers():
    inside = Autoguidance(ClassifierFreeGuidance(Labelled(), 7.5), Labelled(), 1.5)
    assert Bound(Clamp(inside, -1.0, 1.0), None).is_steep and not Bound(Labelled(), None).is_steep
    assert torch.equal(
        end(7.5, 8, wrap=lambda guided: Clamp(guided, -9.0, 9.0)),
        end(7.5, 8, 2.0, wrap=lambda guided: Clamp(guided, -9.0, 9.0)),
    )


@pytest.mark.parametrize("scale", [4.0, 7.5])
@pytest.mark.parametrize("steps", [10, 18])
def test_the_error_under_guidance_is_small(scale, steps):
    r"""The limit of 10 makes 4 to 25 times the error (.2 to 1.6)."""
    exact = end(scale, 600, 1e9)
    error, rough = ((end(scale, steps, limit) - exact).square().mean().sqrt() for limit in (None, 10.0))
    assert error < 0.13 and error < rough / 3
