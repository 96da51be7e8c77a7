r"""Parts of the sources: what is held out comes from the right images, and the others stay as they are."""

import pytest
import torch
from tiny import mnist_like

from scoregen.data import MNIST, ArrayDataset, Digits, Source, Toy2D
from scoregen.errors import UserError


def test_validation_comes_from_the_training_images_and_the_test_part_stays(tmp_path):
    training = torch.from_numpy(mnist_like(tmp_path, "MNIST"))
    source = MNIST(str(tmp_path), download=False, validation=6)
    assert (len(source.train), len(source.validation), len(source.test)) == (14, 6, 20)
    together = torch.cat([source.train.x, source.validation.x]).flatten(1)
    assert sorted(together.tolist()) == sorted(training.flatten(1).tolist())
    assert torch.equal(source.test.x, MNIST(str(tmp_path), download=False).test.x)


def test_no_validation_leaves_the_parts_as_they_are(tmp_path):
    training = torch.from_numpy(mnist_like(tmp_path, "MNIST"))
    source = MNIST(str(tmp_path), download=False)
    assert torch.equal(source.train.x[:, 0], training)
    assert not torch.equal(source.test.x, source.train.x)
    assert source.part("validation") is None


def test_the_split_of_digits_is_the_one_of_all_documented_numbers():
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    whole, source = Digits(test="all").test, Digits()
    assert torch.equal(source.train.x, whole.x[order[:1617]]) and torch.equal(source.test.x, whole.x[order[1617:]])
    assert torch.equal(source.test.label, whole.label[order[1617:]])


def test_all_data_are_the_test_part_and_none_are_left_for_training(tmp_path):
    mnist_like(tmp_path, "MNIST")
    source, parts = MNIST(str(tmp_path), download=False, test="all"), MNIST(str(tmp_path), download=False)
    assert torch.equal(source.test.x, torch.cat([parts.train.x, parts.test.x]))
    assert torch.equal(source.test.label, torch.cat([parts.train.label, parts.test.label]))
    x, label = source.test[[39, 0, 20, 39]]
    assert torch.equal(x, source.test.x[[39, 0, 20, 39]]) and torch.equal(label, source.test.label[[39, 0, 20, 39]])
    assert torch.equal(source.test[21][0], parts.test.x[1]) and source.shape == (1, 28, 28)
    with pytest.raises(UserError, match=r"mnist has no train part: data.test=all leaves none"):
        source.train  # noqa: B018 - reading it is what is refused


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Toy2D(test="none").test, "toy2d has no test part: data.test=none. Give data.test=auto"),
        (lambda: Toy2D().validation, "toy2d has no validation part: Give data.validation=0.1"),
        (lambda: Toy2D(test="no/where").test, "data.test: toy2d has no data.path"),
        (lambda: Toy2D(n=20, validation=18).train, "data.validation: must leave samples for training, got 18 of 18"),
        (lambda: Toy2D(validation=-1), "data.validation: must be auto, none, a share below 1, a number of samples"),
    ],
)
def test_a_part_that_is_not_there_is_named_with_the_remedy(make, text):
    with pytest.raises(UserError, match=text):
        make()


class Own(Source):
    r"""A source of a user, with parts of different shapes."""

    name, range = "own", None

    def load(self, train):
        return ArrayDataset(torch.zeros(5, 2 if train else 3))


def test_parts_of_different_shapes_are_refused():
    with pytest.raises(
        UserError, match=r"parts of own must hold samples of one shape, got train: \(2,\), test: \(3,\)"
    ):
        Own().train  # noqa: B018
