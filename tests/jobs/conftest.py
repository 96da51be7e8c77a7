r"""What the tests of jobs share: a tiny run of digits, and a folder of their own to stand in."""

import pytest
from tiny import DIGITS, train


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "digits", *DIGITS, "trainer.steps=2")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
