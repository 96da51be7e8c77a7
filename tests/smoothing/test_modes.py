r"""A network in training mode is refused wherever a classifier holds it; the mode of an exported program is fixed."""

import functools

import pytest
import torch
from torch import nn

from scoregen.smoothing import Gaussian, SmoothedClassifier

NETWORK = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).requires_grad_(False)


class Held:
    def __init__(self, network):
        self.network = network

    def __call__(self, y):
        return self.network(y)

    def other(self, y):
        return self.inner(y)

    @property
    def inner(self):
        return NETWORK


class Slots(Held):
    __slots__ = ("network",)


class Hidden(nn.Module):
    r"""`eval` does not reach a network that is not registered."""

    def __init__(self, network):
        super().__init__()
        self.networks = [network]

    def forward(self, y):
        return self.networks[0](y)


class ByName:
    def __call__(self, y):
        return NETWORK(y)


@functools.cache
def remembered():
    return NETWORK


def nested(f, depth=8):
    return f if not depth else nested(lambda y: f(y), depth - 1)


@pytest.mark.parametrize(
    "behind",
    [
        lambda y: NETWORK(y),
        Held(NETWORK),
        Held(NETWORK).__call__,
        functools.partial(lambda network, y: network(y), NETWORK),
        (lambda network: lambda y: network(y))(NETWORK),
        lambda y, network=NETWORK: network(y),
        lambda y, *, network=NETWORK: network(y),
        lambda y: remembered()(y),
        lambda y: (lambda z: NETWORK(z))(y),
        nested(functools.partial(lambda networks, y: networks["a"][0](y), {"a": (NETWORK,)})),
        Held(NETWORK).other,
        Slots(NETWORK),
        Hidden(NETWORK).eval(),
        ByName(),
    ],
    ids=[
        *("global", "object", "method", "partial", "closure", "default", "keyword"),
        *("cached", "inner", "nested", "property", "slots", "hidden", "named"),
    ],
)
def test_a_function_over_a_network_in_training_mode_is_refused(behind):
    NETWORK.train()
    with pytest.raises(ValueError, match="must be in evaluation mode"):
        SmoothedClassifier(behind, Gaussian(0.5), 3)
    NETWORK.eval()
    SmoothedClassifier(behind, Gaussian(0.5), 3)


def test_the_mode_of_an_exported_program_was_fixed():
    program = torch.export.export(NETWORK.eval(), (torch.zeros(3, 4),)).module()
    assert program.training
    SmoothedClassifier(program, Gaussian(0.5), 3)
    SmoothedClassifier(lambda y: program(y), Gaussian(0.5), 3)
