r"""The law of networks F(z, c_noise, label) inside a denoiser: every sample has its own output, level and label."""

import inspect

import pytest
import torch
from laws.discovery import classes, unconfigured, uncovered, unexported
from pipelines import UNET
from torch import nn

from scoregen.config import build, conf_dir
from scoregen.description import plain
from scoregen.models import MLP, DiffusersNetwork, DiT, FlatMLP, TableMLP, UNet
from scoregen.rng import generator


def is_network(kind: type) -> bool:
    r"""Whether a module is built from the shape of the data and takes what a denoiser gives."""
    return "shape" in inspect.signature(kind).parameters and "c_noise" in inspect.signature(kind.forward).parameters


def networks() -> list[type]:
    return [kind for kind in classes(nn.Module).values() if is_network(kind)]


# read from folders, never typed
WITHOUT_FILE = {"DiffusersNetwork"}
# a small one of each class
NETWORKS = {
    "diffusers": DiffusersNetwork("UNet2DModel", UNET | {"num_class_embeds": 4}, (1, 8, 8), 3, 3, time_scale=100.0),
    "dit": DiT((2, 6, 9), patch_size=2, width=16, depth=2, heads=2, num_classes=3),  # neither square nor whole patches
    "mlp": MLP((5,), width=8, depth=1, num_classes=3),
    "flat_mlp": FlatMLP((1, 8, 8), width=8, depth=1, num_classes=3),
    "table_mlp": TableMLP((5,), width=8, depth=1, num_classes=3),
    "unet": UNet((1, 8, 8), channels=(4, 8), layers=1, num_classes=3),
}
each = pytest.mark.parametrize("name", NETWORKS)


@torch.no_grad()
def check_network(network: nn.Module) -> None:
    r"""The law of one row of NETWORKS, with random weights: some networks start at zero."""
    draws = generator(0)
    for parameter in network.eval().parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draws) / 3)
    z, c, label = torch.randn(4, *network.shape, generator=draws), torch.linspace(-1, 1, 4), torch.tensor([0, 1, 2, -1])
    whole = network(z, c, label)
    assert whole.shape == z.shape
    alone = torch.cat([network(z[k : k + 1], c[k : k + 1], label[k : k + 1]) for k in range(4)])
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(z, c)[3], whole[3], rtol=1e-4, atol=1e-4)  # -1 is no label
    for other in (network(z, c + 0.5, label), network(z, c, torch.tensor([1, 2, 0, 0]))):
        assert bool(((other - whole).abs().flatten(1).amax(1) > 1e-3).all())


@each
def test_a_sample_has_its_own_output_level_and_label(name):
    check_network(NETWORKS[name])


@each
def test_a_network_is_described_by_its_arguments(name):
    described = plain(NETWORKS[name])
    assert plain(build(described)) == described


def test_every_network_is_exported_and_stands_in_conf_model():
    for kind in networks():
        assert unexported(kind) is None
        assert (unconfigured(kind, None, conf_dir() / "model") is None) != (kind.__name__ in WITHOUT_FILE)


def missing(networks_tried: dict[str, nn.Module]) -> list[str]:
    covered = {type(network) for network in networks_tried.values()}
    return uncovered(networks(), covered, "add a small one to NETWORKS in tests/laws/test_networks.py")


def test_every_network_is_tried():
    assert not missing(NETWORKS)
