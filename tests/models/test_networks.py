r"""The networks inside denoisers: sizes, labels, the first output, and what they refuse."""

import pytest
import torch

from scoregen.models import MLP, Denoiser, UNet
from scoregen.rng import generator
from scoregen.sde import EDM


def make(shape, **options) -> UNet:
    torch.manual_seed(0)
    network = UNet(shape, **({"channels": (4, 8), "layers": 1} | options)).eval()
    torch.nn.init.normal_(network.net.conv_out.weight)
    return network


def ask(network, shape, n: int = 3, label=None) -> torch.Tensor:
    z = torch.randn(n, *shape, generator=generator(0, 1))
    with torch.no_grad():
        return network(z, torch.linspace(-1, 1, n), label)


SIZES = {
    "13x13": ((1, 13, 13), {}),
    "7x10": ((1, 7, 10), {"channels": (4, 4, 8)}),
    "rgb-odd": ((3, 9, 11), {"channels": (4, 4, 4)}),
    "patch-2": ((1, 13, 13), {"patch_size": 2}),
    "patch-3": ((3, 8, 8), {"patch_size": 3, "channels": (4,)}),
    "one-level": ((2, 5, 5), {"channels": (6,)}),
    "attention": ((1, 8, 8), {"channels": (8, 8), "attention": (False, True)}),
}


@pytest.mark.parametrize("name", SIZES)
def test_output_is_shaped_as_the_image_and_a_sample_does_not_see_the_others(name):
    shape, options = SIZES[name]
    network = make(shape, **options)
    z = torch.randn(3, *shape, generator=generator(0, 1))
    with torch.no_grad():
        together = network(z, torch.linspace(-1, 1, 3))
        alone = torch.cat([network(z[i : i + 1], torch.linspace(-1, 1, 3)[i : i + 1]) for i in range(3)])
    assert together.shape == z.shape
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["13x13", "patch-2"])
def test_padding_is_reflection_cropped_again(name):
    r"""An image gives the same output whether the network pads it or it came padded."""
    shape, options = SIZES[name]
    network = make(shape, **options)
    z = torch.randn(1, *shape, generator=generator(0, 2))
    side = -(-13 // network.multiple) * network.multiple
    padded = torch.nn.functional.pad(z, (0, side - 13, 0, side - 13), mode="reflect")
    with torch.no_grad():
        small, large = network(z, torch.zeros(1)), network(padded, torch.zeros(1))
    torch.testing.assert_close(small, large[..., :13, :13])


@pytest.mark.parametrize(
    "conditional", [lambda k: make((1, 6, 6), num_classes=k), lambda k: mlp(num_classes=k)], ids=["unet", "mlp"]
)
def test_labels_tell_and_minus_one_is_no_label(conditional):
    network = conditional(3)
    shape = (1, 6, 6) if isinstance(network, UNet) else (2,)
    none, null = ask(network, shape), ask(network, shape, label=torch.tensor([-1, -1, -1]))
    assert torch.equal(none, null)
    mixed, pure = (ask(network, shape, label=torch.tensor(k)) for k in ([0, 2, -1], [0, 0, 0]))
    assert torch.equal(mixed[0], pure[0]) and torch.equal(mixed[2], null[2])
    assert not torch.allclose(mixed[1], pure[1])


def mlp(**options) -> MLP:
    torch.manual_seed(0)
    network = MLP((2,), width=8, depth=2, **options).eval()
    torch.nn.init.normal_(network.last.weight)
    return network


@pytest.mark.parametrize(
    "make_network, shape", [(lambda: make((1, 8, 8)), (1, 8, 8)), (mlp, (2,))], ids=["unet", "mlp"]
)
def test_the_noise_level_tells(make_network, shape):
    network = make_network()
    z = torch.randn(1, *shape, generator=generator(0, 1)).expand(2, *shape)
    with torch.no_grad():
        a, b = network(z, torch.tensor([-1.0, -0.9]))
    assert not torch.allclose(a, b)


@pytest.mark.parametrize(
    "network, shape", [(UNet((1, 8, 8), (4,), 1), (1, 8, 8)), (MLP((2,), 4, 1), (2,))], ids=["unet", "mlp"]
)
def test_the_first_output_is_zero(network, shape):
    assert bool((ask(network, shape) == 0).all())


def test_dropout_acts_in_training_only():
    network = mlp(dropout=0.5)
    assert torch.equal(ask(network, (2,)), ask(network, (2,)))
    network.train()
    assert not torch.equal(ask(network, (2,)), ask(network, (2,)))


@pytest.mark.parametrize(
    "make_network, text",
    [
        (lambda: UNet((8, 8)), r"shape must be that of one image, .*got \(8, 8\). Use an MLP"),
        (lambda: UNet((1, 8, 8), ()), "at least one level"),
        (lambda: UNet((1, 8, 8), (0,)), r"widths >= 1 .*channels=\(0,\)"),
        (lambda: UNet((1, 8, 8), (4,), layers=0), "layers=0"),
        (lambda: UNet((1, 8, 8), (4, 4), attention=(True,)), "one flag a level, got 1 flags for 2 levels"),
        (lambda: UNet((1, 2, 2), (4, 4, 4, 4)), "images of 2x2 are too small for 4 levels and patch_size=1. Use fewer"),
        (lambda: UNet((1, 8, 8), (4,), num_classes=0), "num_classes must be a whole number >= 1, got num_classes=0"),
        (lambda: UNet((1, 8, 8), (4,), dropout=1.0), r"dropout must lie in \[0, 1\), got dropout=1.0"),
        (lambda: MLP((1, 8, 8)), r"shape must be \(D,\) for an MLP, got \(1, 8, 8\). Use a U-Net"),
        (lambda: MLP((2,), width=3), "width must be even"),
        (lambda: MLP((2,), num_classes=-1), "num_classes must be a whole number >= 1"),
        (lambda: MLP((2,), dropout=-0.1), r"dropout must lie in \[0, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(make_network, text):
    with pytest.raises(ValueError, match=text):
        make_network()


def test_an_mlp_works_in_bfloat16():
    network = Denoiser(MLP((3,), 16, 1), EDM()).to(torch.bfloat16)
    assert network(torch.ones(2, 3), 1.0).dtype == torch.float32


def test_labels_that_are_no_class_are_refused():
    network = MLP((2,), num_classes=3)
    x, c = torch.randn(2, 2), torch.zeros(2)
    for label in (3, 4):
        with pytest.raises(ValueError, match=f"label must lie below num_classes=3, or be -1 for none, got {label}"):
            network(x, c, torch.tensor([0, label]))
    assert torch.equal(network(x, c, torch.tensor([-1, -1])), network(x, c))
