r"""Tiny runs for the tests of the demo, and what is behind its page for them."""

import numpy as np
import pytest
from PIL import Image
from tiny import DIGITS, TOY, train

import scoregen


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs of the demo's")  # a name that a shell and Hydra must be told of
    train(folder / "digits", *DIGITS, "trainer.steps=2")
    train(folder / "log", *DIGITS, "trainer.steps=2", "conditional=false", "sde=multiplicative", "sde.offset=0.02")
    train(folder / "toy", *TOY, "trainer.steps=1")
    small = ["data=digits", "model=classifier", "model.channels=[4]", "model.blocks=[1]", "loss=cross_entropy"]
    train(folder / "classifier", *small, *DIGITS[3:], "trainer.steps=1")
    x = np.random.default_rng(0).uniform(0.2, 0.6, (8, 8)).astype(np.float32)
    np.save(folder / "speckled.npy", x)
    Image.fromarray((255 * x).round().astype(np.uint8)).save(folder / "picture.png")
    return folder


@pytest.fixture(scope="session")
def both(runs):
    r"""What is behind the page of a denoiser and a classifier."""
    return scoregen.Demo(checkpoint=f"{runs}/digits", classifier=f"{runs}/classifier").tabs()


@pytest.fixture(scope="session")
def log(runs):
    return scoregen.Demo(checkpoint=f"{runs}/log").tabs()
