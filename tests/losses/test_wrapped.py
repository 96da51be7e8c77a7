r"""Wrapped losses: what the trainer tells the outer loss reaches the inner one."""

import pytest
import torch

from scoregen.losses import JacobianPenalty, LatentLoss, Loss, OptimalTransportPairing, StepwiseVariation


class Heard(Loss):
    r"""Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def begin(self, model):
        self.heard.append(("begin", model))

    def at(self, step, steps):
        self.heard.append(("at", step, steps))

    def metrics(self):
        return {"inner": 5.0}

    def forward(self, model, x_0, label=None, generator=None, quantile=None):
        return x_0.sum(1)


WRAPPERS = [LatentLoss, OptimalTransportPairing, StepwiseVariation, JacobianPenalty]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_the_inner_loss_hears_the_trainer(wrap):
    inner, model = Heard(), torch.nn.Identity()
    outer = wrap(inner)
    outer.begin(model)
    outer.at(3, 7)
    assert inner.heard == [("begin", model), ("at", 3, 7)]
    assert outer.metrics()["inner"] == 5.0


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_only_losses_are_wrapped(wrap):
    with pytest.raises(TypeError, match=r"base_loss must be a loss of scoregen\.losses, got Identity"):
        wrap(torch.nn.Identity())
