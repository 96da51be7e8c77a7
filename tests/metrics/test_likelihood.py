import pytest
import torch

from scoregen.metrics import bits_per_dim, dequantise


@pytest.mark.parametrize(("width", "bits"), [(1.0, 8.0), (2.0, 8.0)], ids=["[0, 1]", "[-1, 1]"])
def test_uniform_density_costs_all_bits(width, bits):
    r"""The uniform density 1/width on every pixel gives every level the probability 1/256."""
    d = 12
    log_prob = -d * torch.tensor(width).double().log()
    assert float(bits_per_dim(log_prob, d, width=width)) == pytest.approx(bits)


def test_a_density_constant_on_each_bin_gives_the_entropy():
    r"""Two levels with probabilities .25 and .75: the mean bits are the entropy of the discrete law."""
    p = torch.tensor([0.25, 0.75]).double()
    log_density = (p * 2).log()
    bits = (p * bits_per_dim(log_density, 1, levels=2)).sum()
    assert float(bits) == pytest.approx(float(-(p * p.log2()).sum()))


def test_dequantised_images_stay_in_their_bin():
    levels = torch.arange(256).double().expand(50, 256)
    x = dequantise(levels / 255, torch.Generator().manual_seed(0))
    assert ((x * 256).floor() == levels).all()
    assert float((x * 256 - levels).mean()) == pytest.approx(0.5, abs=4 * (1 / 12 / levels.numel()) ** 0.5)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="width must be > 0 and finite, got width=0"):
        bits_per_dim(torch.zeros(1), 12, width=0)
