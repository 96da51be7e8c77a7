r"""A module of the user's own with networks, a classifier, a loss and data, and commands that use it."""

import sys
from pathlib import Path

import pytest
from tiny import command

MODULE = '''
import os
import random
from os import system

import torch
from torch import nn
from torch.nn import Linear

from scoregen.data.base import Source, split
from scoregen.losses import DenoisingScoreMatching
from scoregen.models import Classifier
from scoregen.sde import VP

class Net(nn.Module):
    """Convolutions that take any size: they are not told the shape."""

    def __init__(self, width=4, seed=20260101, norm="none"):
        super().__init__()
        self.width, self.seed, self.norm = width, seed, norm
        self.first, self.last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.time = nn.Linear(1, width)

    def forward(self, z, c_noise, label=None):
        return self.last(torch.tanh(self.first(z) + self.time(c_noise[:, None].to(z))[:, :, None, None]))


class Tied(Net):
    def __init__(self, width=4):
        super().__init__(width)
        self.again = self.first


class Drawn(Net):
    def __init__(self):
        super().__init__(random.randint(1, 10**4))


class Pair(Net):
    def forward(self, z, c_noise, label=None):
        return (super().forward(z, c_noise, label),)


class Short(Net):
    def forward(self, x, t):
        return x


class Slip(Net):
    def forward(self, z, c_noise, label=None):
        return self.middle(z)


class Empty:
    def __init__(self, width):
        self.width = width


class Flat(Net):
    def forward(self, z, c_noise, label=None):
        return super().forward(z, c_noise, label).mean(1)


class Grey(nn.Module):
    """A classifier."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes, self.layer = num_classes, nn.Linear(64, num_classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()
        float(torch.zeros(1))  # which no tensor without memory allows
        self.layer = nn.Linear(width, width)


class Features(Classifier):
    pass


class Squared(DenoisingScoreMatching):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, *arguments, **named):
        return self.factor * super().forward(*arguments, **named)


class Ramp(Source):
    name, range, num_classes = "ramp", (0.0, 1.0), 10

    def __init__(self, n=20, transpose=False):
        super().__init__()
        self.n, self.transpose = n, transpose

    def load(self, train):
        x = torch.linspace(0, 1, self.n * 64).view(self.n, 1, 8, 8)
        return split(x.mT if self.transpose else x, torch.arange(self.n) % 10, train)


class Path(VP):
    pass


def make():
    return Net()


def grey():
    return Grey(10).eval()
'''
SMALL = ["data=digits", "trainer.precision=no", "trainer.batch_size=8", "trainer.log_every=1", "preview.every=null"]
OWN = [*SMALL, "trainer.steps=1", "model.network._target_=mynet.Net", "model.network.width=3"]
TRUST = "trust=[mynet]"


def with_modules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    r"""A folder from which Python imports the module, under two names."""
    monkeypatch.syspath_prepend(folder)
    for name in ("mynet", "mynetwork"):
        (folder / f"{name}.py").write_text(MODULE)
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    return folder


def ran(name: str, *argv: str) -> None:
    assert command(name, *argv) == 0


def refused(capsys, name: str, *argv: str) -> str:
    capsys.readouterr()
    assert command(name, *argv) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text
