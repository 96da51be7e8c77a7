r"""torchvision's transforms by their names."""

import pytest
import torch
from tiny import DIGITS, numbers, train

from scoregen.data import Transforms
from scoregen.data.transforms import ALLOWED
from scoregen.errors import UserError
from scoregen.rng import generators

NEEDED = {
    "RandomRotation": {"degrees": 10},
    "RandomAffine": {"degrees": 10},
    "RandomAdjustSharpness": {"sharpness_factor": 2},
    "GaussianBlur": {"kernel_size": 3},
    "RandomPosterize": {"bits": 3},
    "RandomSolarize": {"threshold": 0.5},
    "ElasticTransform": {"sigma": 2.0},
    "AutoAugment": {"policy": "cifar10"},
}


def draws(indices=range(4)):
    return generators(0, 3, 0, indices)


@pytest.mark.parametrize("name", ALLOWED)
def test_every_transform_keeps_shape_and_range_and_is_a_function_of_the_sample_s_generator(name):
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    transforms = Transforms([{name: NEEDED.get(name, {})}])
    whole = transforms(x, draws())
    torch.manual_seed(5)
    assert torch.equal(transforms(x[2:], draws(range(2, 4))), whole[2:])
    assert whole.shape == x.shape and float(whole.min()) >= 0 and float(whole.max()) <= 1


def test_transforms_are_applied_in_their_order_and_in_the_units_of_the_data():
    r"""Solarisation inverts what is above 1/2 of the range; then everything is inverted."""
    x = torch.tensor([-1.0, -0.5, 0.5, 1.0]).reshape(1, 1, 1, 4)
    steps = [{"RandomSolarize": {"threshold": 0.5, "p": 1.0}}, {"RandomInvert": {"p": 1.0}}]
    out = Transforms(steps, range=[-1, 1])(x, draws([0]))
    assert out.flatten().tolist() == [1.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (["ColourJitter"], "Did you mean 'ColorJitter'"),
        (["Lambda"], "steps must be RandomCrop.*got steps='Lambda'"),
        ([{"ColorJitter": {"brightnes": 1}}], "ColorJitter has no argument 'brightnes'. Did you mean 'brightness'"),
        ([{"ColorJitter": {"brightness": -1}}], "ColorJitter refuses its arguments: If brightness"),
        (["RandomRotation"], "RandomRotation refuses its arguments: .*missing.*degrees"),
        ([{"AutoAugment": {"policy": "x"}}], "policy must be imagenet, cifar10 or svhn, got policy='x'"),
        ([3], "must each be the name of a transform.*got 3"),
        ([{"RandomInvert": {}, "GaussianBlur": {}}], "must each be the name"),
    ],
)
def test_mistakes_are_found_when_it_is_made(steps, text):
    with pytest.raises(ValueError, match=text):
        Transforms(steps)


def test_values_outside_the_range_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"range must hold the values.*values from 0 to 2\..*data.augmentation.range"):
        Transforms(["RandomInvert"])(torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2), draws([0]))
    with pytest.raises(ValueError, match=r"keep the shape of images, got \(1, 1, 8, 8\) in and \(1, 1, 4, 4\) out"):
        Transforms([{"RandomCrop": {"size": 4}}])(torch.zeros(1, 1, 8, 8), draws([0]))


def test_transforms_are_given_on_the_command_line_and_a_slip_is_one_message(tmp_path):
    def given(argument):
        steps = f"[RandomAutocontrast,{{RandomRotation:{{{argument}:10}}}}]"
        return [*DIGITS, "trainer.steps=1", f"+data.augmentation={{_target_:scoregen.data.Transforms,steps:{steps}}}"]

    assert numbers(train(tmp_path / "a", *given("degrees")))[0]["loss"] > 0
    with pytest.raises(UserError, match=r"RandomRotation has no argument 'degree'. Did you mean 'degrees'"):
        train(tmp_path / "b", *given("degree"))
