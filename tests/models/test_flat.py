r"""The perceptron on flattened samples is the perceptron."""

import torch

from scoregen.models import MLP, FlatMLP


def test_it_is_the_mlp_of_the_flattened_image():
    torch.manual_seed(0)
    flat, plain = FlatMLP((1, 3, 2), 8, 2, num_classes=3).double(), MLP((6,), 8, 2, num_classes=3).double()
    torch.nn.init.normal_(flat.last.weight)
    plain.load_state_dict(flat.state_dict())
    z, c, label = torch.randn(4, 1, 3, 2).double(), torch.rand(4).double(), torch.tensor([0, 1, 2, -1])
    assert torch.equal(flat(z, c, label), plain(z.flatten(1), c, label).reshape(z.shape))
