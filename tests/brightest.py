r"""Classifiers of digits that tests name as `brightest:NAME`, good ones and bad ones."""

import torch
from torch import nn


def network():
    r"""Class = which of ten pixel groups is brightest."""
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(10).repeat(1, 7)[:, :64])
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval()


def number():
    return 3


def broken():
    return {}["weights"]


def few():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()


def coloured():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()


def exact():
    return network().double()
