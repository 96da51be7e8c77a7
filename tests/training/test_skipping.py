r"""Steps whose loss or gradient is not finite."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import TOY, numbers, train, weights

from scoregen import load
from scoregen.errors import UserError
from scoregen.training import Hook, Moment

OVERRIDES = [*TOY, "trainer.steps=6", "trainer.checkpoint_every=2", "trainer.max_skipped=3", "trainer.keep_last=9"]


def broken(*steps: int) -> dict:
    return {"loss": {"_target_": "tiny.Broken", "bad": list(steps)}}


def test_bad_steps_change_nothing_and_are_counted(tmp_path):
    r"""The last step writes its checkpoint, even if it was skipped."""
    folder = train(tmp_path, *OVERRIDES, "trainer.steps=4", **broken(2, 3))
    at_2, at_4 = (folder / "checkpoints" / f"step_0000000{k}" for k in (2, 4))
    for name in ("model", "ema", "optimizer"):
        assert (at_2 / f"{name}.safetensors").read_bytes() == (at_4 / f"{name}.safetensors").read_bytes()
    lines = numbers(folder)
    assert [line["skipped"] for line in lines] == [0, 0, 1, 2]
    assert ["loss" in line for line in lines] == [True, True, False, False]


def test_training_goes_on_after_bad_steps_and_a_checkpoint_waits_for_a_good_one(tmp_path):
    folder = train(tmp_path, *OVERRIDES, **broken(2, 3))
    assert steps_kept(folder) == [2, 5, 6]
    assert ["loss" in line for line in numbers(folder)] == [True, True, False, False, True, True]
    assert all(torch.isfinite(w).all() for w in weights(folder).values())


def test_what_is_written_while_steps_are_skipped_takes_the_place_of_no_other(tmp_path):
    folder = train(tmp_path, *OVERRIDES, "trainer.keep_last=1", "trainer.steps=4", **broken(3))
    assert steps_kept(folder) == [2, 4]


def steps_kept(folder) -> list[int]:
    return sorted(int(path.name[-8:]) for path in (folder / "checkpoints").glob("step_*"))


class Spoils(Hook):
    r"""Makes an average infinite: the model holds the averages while hooks run."""

    def __call__(self, moment: Moment) -> None:
        torch.nn.init.constant_(moment.model.get_parameter("network.first.weight"), float("inf"))
        moment.save("best")


def test_a_run_with_bad_averages_keeps_its_last_finite_checkpoint_and_names_it(tmp_path, capsys):
    options = [*TOY, "trainer.steps=20", "trainer.checkpoint_every=1", "trainer.keep_last=2"]
    text = r"'network.first.weight' is not finite after step 3.* finite checkpoint is '.*step_00000002'"
    with pytest.raises(UserError, match=text):
        train(tmp_path, *options, preview={"_target_": f"{__name__}.Spoils", "every": 3})
    assert steps_kept(tmp_path) == [1, 2]
    assert "checkpoints/best is not written: 'network.first.weight' is not finite" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints" / "best").exists()


def test_a_hopeless_rate_leaves_finite_weights_alone(tmp_path):
    options = [*TOY, "trainer.steps=30", "trainer.checkpoint_every=1", "trainer.keep_last=2", "trainer.clip=null"]
    options += ["trainer.optimizer.lr=1e38", "trainer.schedule.warmup=0", "trainer.max_skipped=3"]
    with pytest.raises(UserError, match=r"not finite|No checkpoint was written yet"):
        train(tmp_path, *options)
    for path in (tmp_path / "checkpoints").glob("step_*"):
        for part in ("model", "ema"):
            assert all(torch.isfinite(w).all() for w in load_file(path / f"{part}.safetensors").values())


def test_metrics_are_json_without_nan(tmp_path):
    folder = train(tmp_path, *OVERRIDES, **broken(0))
    refuse = pytest.fail
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: refuse(f"{name} is not JSON"))


def test_too_many_in_a_row_end_the_run_with_the_checkpoint_intact(tmp_path):
    text = (
        r"not finite 3 times in a row .*max_skipped=3; step 6.*learning rate.* finite checkpoint is '.*step_00000002'"
    )
    with pytest.raises(UserError, match=text):
        train(tmp_path, *OVERRIDES, **broken(3, 4, 5))
    assert (tmp_path / "checkpoints" / "last").resolve().name == "step_00000002"
    assert all(torch.isfinite(w).all() for w in load(tmp_path).state_dict().values())


def test_good_steps_between_start_the_count_anew(tmp_path):
    folder = train(tmp_path, *OVERRIDES, **broken(0, 1, 3, 4))
    assert numbers(folder)[-1]["skipped"] == 4


def test_without_a_checkpoint_the_message_says_so(tmp_path):
    with pytest.raises(UserError, match="No checkpoint was written yet"):
        train(tmp_path, *OVERRIDES, "trainer.max_skipped=1", **broken(0))
