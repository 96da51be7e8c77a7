import pytest
import torch

from scoregen.models.classifier import Classifier


def small(**arguments):
    torch.manual_seed(0)
    return Classifier((1, 8, 8), 10, channels=(8, 16), blocks=(1, 1), **arguments)


def images(n=12):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_logits_are_the_last_layer_of_the_features():
    model = small().eval()
    features = model.features(images())
    assert features.shape == (12, model.num_features)
    torch.testing.assert_close(model(images()), features @ model.head.weight.T + model.head.bias)


def test_hidden_units_see_where_a_feature_stands():
    r"""Halves of the last stage exchanged: the mean over pixels cannot tell, a layer over all pixels does."""
    pooled, hidden = small().eval(), small(hidden=32).eval()
    assert hidden.features(images()).shape == (12, hidden.num_features) == (12, 32)
    maps = pooled.stages(images())
    torch.testing.assert_close(pooled.pool(maps), pooled.pool(maps.flip(2)))
    assert (hidden.pool(maps) - hidden.pool(maps.flip(2))).abs().max() > 1e-3
    odd = Classifier((1, 7, 9), 2, channels=(4, 8), blocks=(0, 0), hidden=5)  # 7 x 9 -> 4 x 5 -> 2 x 3
    assert odd(torch.rand(3, 1, 7, 9)).shape == (3, 2)


def test_an_image_does_not_depend_on_its_batch_in_evaluation():
    model = small().double()
    model(images(50).double())  # moves the running statistics away from their start
    model.eval()
    x = images().double()
    torch.testing.assert_close(model(x)[4:7], model(x[4:7]), rtol=1e-10, atol=1e-10)


def test_normalisation_is_inside():
    r"""The first convolution sees (x - 1/2)/(1/4): grey 1/2 is its zero, so noise on x is in pixel units."""
    model, seen = small().eval(), []
    model.stages[0][0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 1, 8, 8))
    assert seen[0][:, 0, 0, 0].tolist() == [-2.0, 0.0, 2.0]


def test_learns_the_digits():
    r"""60 steps on 8 x 8 digits: well above chance (0.1); it reaches 0.99 when trained fully."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 16
    y = torch.from_numpy(digits.target)
    model = small(stem_stride=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(0))
    for step in range(60):
        rows = order[torch.arange(64 * step, 64 * step + 64) % 1500]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    accuracy = (model.eval()(x[1500:]).argmax(1) == y[1500:]).double().mean()
    assert float(accuracy) > 0.85


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"shape": (28, 28)}, "shape must be that of one image"),
        ({"num_classes": 1}, "num_classes must be a whole number >= 2, got num_classes=1"),
        ({"blocks": (1,)}, "channels must be >= 1 and blocks >= 0, one of each a stage"),
        ({"shape": (1, 4, 4)}, "shrink an image 8 times"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got dropout=1.0"),
        ({"hidden": 0}, "hidden must be a whole number >= 1"),
    ],
    ids=["shape", "classes", "stages", "too small", "dropout", "hidden"],
)
def test_bad_arguments_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        Classifier(**{"shape": (1, 28, 28), "num_classes": 10} | arguments)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(B, 1, 8, 8\), got \(2, 3, 8, 8\)"):
        small()(torch.zeros(2, 3, 8, 8))
