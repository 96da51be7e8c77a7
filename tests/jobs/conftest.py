r"""What the tests of jobs share: tiny runs, classifiers of other libraries, and a folder of their own to stand in."""

import pytest
from classifier_parts import random_classifiers
from tiny import DIGITS, train


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "digits", *DIGITS, "trainer.steps=2")


@pytest.fixture(scope="session")
def log_and_additive(tmp_path_factory):
    r"""The folder of two runs: `log` of a multiplicative process, and `additive`."""
    folder = tmp_path_factory.mktemp("runs")
    small = [*DIGITS, "trainer.steps=2", "conditional=false"]
    train(folder / "log", *small, "sde=multiplicative", "sde.offset=0.02")
    train(folder / "additive", *small)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    r"""Classifiers of the libraries "torchvision", "timm" and "hf": source, file of weights or None, network."""
    return random_classifiers(tmp_path_factory.mktemp("models"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
