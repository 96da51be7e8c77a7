r"""The building blocks of benchmarks/blocks.py by their formulas, and the example of a forest in the docs."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.blocks import CRReLU, EvoNormB0, EvoNormS0, PolyNorm, Sign, lecun_normal
from benchmarks.building_blocks import PARTS, Run, split
from scoregen.rng import generator

PAGE = Path(__file__).parents[1] / "docs" / "certification.md"


def images(n: int = 6, channels: int = 16):
    return 0.5 + 2 * torch.randn(n, channels, 5, 4, generator=generator(0), dtype=torch.float64)


def test_crrelu_has_its_minimum_at_minus_one():
    x = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    y = CRReLU().double()(x).detach()
    assert float(y.min()) == pytest.approx(-0.01 * math.exp(-0.5), abs=1e-9) == pytest.approx(-0.0060653, abs=1e-7)
    assert float(x[y.argmin()]) == pytest.approx(-1)


def test_polynorm_does_not_see_the_scale():
    x = torch.randn(7, 64, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(PolyNorm().double()(3 * x), PolyNorm().double()(x), rtol=0, atol=3e-6)
    one = PolyNorm().double()(torch.full((1, 8), 2.0, dtype=torch.float64))
    torch.testing.assert_close(one, torch.ones_like(one), rtol=1e-6, atol=0)  # (1 + 1 + 1)/3


def test_evonorm_s0_without_its_gate_is_half_of_group_norm_without_means():
    x, norm = images(), EvoNormS0(16, 4).double()
    nn.init.zeros_(norm.v)
    deviation = (x.reshape(6, 4, -1).var(2, correction=0) + 1e-5).sqrt().repeat_interleave(4, 1)[..., None, None]
    torch.testing.assert_close(norm(x), x / (2 * deviation))


def test_evonorm_b0_never_exceeds_what_the_image_alone_would_give():
    x, norm = images(), EvoNormB0(16).double()
    nn.init.zeros_(norm.v)
    alone = x / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    assert bool((norm(x).abs() <= alone.abs() * (1 + 1e-12)).all())
    batch = x / (x.var((0, 2, 3), correction=0) + 1e-5).sqrt()[:, None, None]
    torch.testing.assert_close(norm(x), torch.where(alone.abs() < batch.abs(), alone, batch))
    torch.testing.assert_close(norm.eval()(x)[2:4], norm(x[2:4]), rtol=0, atol=0)


def test_the_gradient_of_a_sign_passes_within_one():
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    y = Sign()(x)
    y.sum().backward()
    assert y.tolist() == [-1, -1, 1, 1, 1] and x.grad.tolist() == [0, 1, 1, 1, 0]


def test_lecun_normal_has_variance_one_over_fan_in():
    layer = nn.Linear(400, 300)
    lecun_normal(layer)
    assert float(layer.weight.detach().var()) == pytest.approx(1 / 400, rel=5 * (2 / 120_000) ** 0.5)
    assert not layer.bias.any()


def test_drop_muon_moves_the_layers_from_a_random_one_on():
    part = PARTS["vectors"]
    run = Run(part, part.variants["SiLU, Drop-Muon"], 0)
    nn.init.normal_(run.model.network.last.weight)  # 0 at first, which gives hidden layers no gradient
    x, label, _, _ = split(0, True)
    kept = set()
    for number in range(4):
        before = [weight.detach().clone() for weight in run.layers]
        run.step(number, x, label)
        moved = [not torch.equal(a, b) for a, b in zip(before, run.layers, strict=True)]
        assert moved == sorted(moved) and moved[-1]
        kept.add(moved.index(True))
    assert len(kept) > 1


def test_the_forest_of_the_docs_is_certified_as_they_say():
    code = re.search(r"```python\n(import torch\nfrom sklearn.*?)```", PAGE.read_text(), re.S).group(1)
    *lines, last = code.strip().splitlines()
    names: dict = {}
    exec(compile("\n".join(lines), PAGE.name, "exec"), names)
    found, stated = eval(last.split("#")[0], names), last.split("#")[1]
    assert int(names["test"].sum()) == 40
    assert found == pytest.approx(eval(stated), abs=5.1)  # two rows: versions of scikit-learn grow other trees
