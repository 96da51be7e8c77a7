r"""A validation part that is cut from the training part, so that selection never sees the test part."""

import pytest
import torch
from tiny import mnist_like

from scoregen.data import MNIST


def test_validation_comes_from_the_training_images_and_the_test_images_are_not_read(tmp_path):
    training = torch.from_numpy(mnist_like(tmp_path, "MNIST"))
    source = MNIST(str(tmp_path), download=False, validation=6)
    assert (len(source.train), len(source.test)) == (14, 6)
    together = torch.cat([source.train.x, source.test.x]).flatten(1)
    assert sorted(together.tolist()) == sorted(training.flatten(1).tolist())


def test_no_validation_leaves_the_parts_as_they_are(tmp_path):
    training = torch.from_numpy(mnist_like(tmp_path, "MNIST"))
    source = MNIST(str(tmp_path), download=False)
    assert torch.equal(source.train.x[:, 0], training)
    assert not torch.equal(source.test.x, source.train.x)


def test_bad_numbers_are_refused(tmp_path):
    mnist_like(tmp_path, "MNIST")
    with pytest.raises(ValueError, match="validation must be a whole number >= 0, got validation=-1"):
        MNIST(str(tmp_path), validation=-1)
    with pytest.raises(
        ValueError, match="validation must be below the number of training images, 20, got validation=20"
    ):
        MNIST(str(tmp_path), download=False, validation=20).load(True)
