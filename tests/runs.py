r"""Two runs compared."""

import json
from pathlib import Path

import torch
from tiny import numbers, weights


def assert_same_run(a: Path, b: Path) -> None:
    r"""Bit for bit the same weights, averages, optimizer, counters and numbers."""
    for name in ("model", "ema", "optimizer"):
        x, y = weights(a, name), weights(b, name)
        assert x.keys() == y.keys()
        assert all(torch.equal(x[k], y[k]) for k in x), name
    states = [json.loads((f / "checkpoints" / "last" / "state.json").read_text()) for f in (a, b)]
    for state in states:  # config.yaml says whether it was resumed
        del state["sha256"], state["files"]["config.yaml"]
    assert states[0] == states[1]
    assert numbers(a) == numbers(b)
