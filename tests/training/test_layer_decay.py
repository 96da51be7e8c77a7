r"""Learning rates that decay from the head to the input."""

import pytest
import torch

from scoregen.data import ArrayDataset, Source
from scoregen.losses import CrossEntropy
from scoregen.models import MLP, ViTClassifier
from scoregen.training import Trainer

VIT = {"shape": (1, 4, 4), "num_classes": 3, "patch_size": 2, "width": 8, "depth": 2, "heads": 2}


class Noise(Source):
    name = "noise"
    range = (0.0, 1.0)

    def load(self, train):
        return ArrayDataset(torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)


def test_a_layer_s_rate_is_a_power_of_the_decay_and_frozen_parts_are_left_out():
    model = ViTClassifier(**VIT, trainable=("encoder", "head"))
    optimizer = Trainer(1, layer_decay=0.5).make_optimizer(model)
    rate = {id(p): g["rate"] for g in optimizer.param_groups for p in g["params"]}
    assert rate[id(model.head.weight)] == rate[id(model.encoder.norm.weight)] == 1
    assert rate[id(model.encoder.blocks[1].linear1.weight)] == 0.5
    assert rate[id(model.encoder.blocks[0].linear1.weight)] == 0.25
    assert rate[id(model.encoder.positions)] == rate[id(model.encoder.patches.weight)] == 0.125
    assert not any(id(p) in rate for p in model.projector.parameters())


@pytest.mark.parametrize(("decay", "lengths"), [(None, (1, 1, 1)), (0.5, (1, 0.25, 0.125))], ids=["none", "half"])
def test_adam_s_first_step_is_as_long_as_the_layer_s_rate(tmp_path, decay, lengths):
    r"""It moves every weight with a gradient by its learning rate."""
    model = ViTClassifier(**VIT)
    names = ("head.weight", "encoder.blocks.0.linear1.weight", "encoder.positions")
    before = {name: model.get_parameter(name).detach().clone() for name in names}

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=1e-2, eps=1e-30)

    trainer = Trainer(1, batch_size=8, clip=None, precision="no", layer_decay=decay, optimizer=adam)
    trainer.fit(model, CrossEntropy(0.5), Noise(), tmp_path, {"model": {}})
    for name, length in zip(names, lengths, strict=True):
        moved = (model.get_parameter(name) - before[name]).abs().max().item()
        assert moved == pytest.approx(1e-2 * length, rel=1e-3)


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"layer_decay must lie in \(0, 1\], got layer_decay=1.5"):
        Trainer(1, layer_decay=1.5)


def test_a_model_without_named_layers_is_refused():
    with pytest.raises(ValueError, match=r"layer_decay must be null for a MLP, .* got layer_decay=0.5"):
        Trainer(1, layer_decay=0.5).make_optimizer(MLP((2,)))
