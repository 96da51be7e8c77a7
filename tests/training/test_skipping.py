r"""Steps whose loss or gradient is not finite."""

import json

import pytest
import torch
from tiny import TOY, numbers, train, weights

from scoregen import load
from scoregen.errors import UserError

OVERRIDES = [*TOY, "trainer.steps=6", "trainer.checkpoint_every=2", "trainer.max_skipped=3", "trainer.keep_last=9"]


def broken(*steps: int) -> dict:
    return {"loss": {"_target_": "tiny.Broken", "bad": list(steps)}}


def test_bad_steps_change_nothing_and_are_counted(tmp_path):
    folder = train(tmp_path, *OVERRIDES, **broken(2, 3))
    at_2, at_4 = (folder / "checkpoints" / f"step_0000000{k}" for k in (2, 4))
    for name in ("model", "ema", "optimizer"):
        assert (at_2 / f"{name}.safetensors").read_bytes() == (at_4 / f"{name}.safetensors").read_bytes()
    lines = numbers(folder)
    assert [line["skipped"] for line in lines] == [0, 0, 1, 2, 2, 2]
    assert ["loss" in line for line in lines] == [True, True, False, False, True, True]
    assert all(torch.isfinite(w).all() for w in weights(folder).values())


def test_metrics_are_json_without_nan(tmp_path):
    folder = train(tmp_path, *OVERRIDES, **broken(0))
    refuse = pytest.fail
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: refuse(f"{name} is not JSON"))


def test_too_many_in_a_row_end_the_run_with_the_checkpoint_intact(tmp_path):
    with pytest.raises(
        UserError, match=r"not finite 3 times in a row .*max_skipped=3; step 6.*learning rate.*is intact"
    ):
        train(tmp_path, *OVERRIDES, **broken(3, 4, 5))
    assert (tmp_path / "checkpoints" / "last").resolve().name == "step_00000004"
    assert all(torch.isfinite(w).all() for w in load(tmp_path).state_dict().values())


def test_good_steps_between_start_the_count_anew(tmp_path):
    folder = train(tmp_path, *OVERRIDES, **broken(0, 1, 3, 4))
    assert numbers(folder)[-1]["skipped"] == 4


def test_without_a_checkpoint_the_message_says_so(tmp_path):
    with pytest.raises(UserError, match="No checkpoint was written yet"):
        train(tmp_path, *OVERRIDES, "trainer.max_skipped=1", **broken(0))
