r"""A run that was killed and goes on is the run that was not."""

import json
import shutil
from typing import ClassVar

import pytest
import torch
from runs import assert_same_run
from safetensors.torch import load_file, save_file
from tiny import DIGITS, TOY, Recorder, numbers, train, weights

from scoregen.checkpoint_files import write_state
from scoregen.errors import UserError
from scoregen.training import Hook

DROPOUT = [*TOY, "model.network.dropout=0.3", "trainer.steps=11", "trainer.checkpoint_every=3", "trainer.log_every=4"]
AUGMENTED = [
    *DIGITS,
    "trainer.steps=4",
    "trainer.checkpoint_every=2",
    "+data.augmentation={_target_:scoregen.data.Shift}",
]


def kill(step: int) -> dict:
    return {"preview": {"_target_": "tiny.Kill", "every": step}}


@pytest.mark.parametrize(
    "overrides, at",
    [(DROPOUT, 5), (DROPOUT, 8), (DROPOUT, 2), (AUGMENTED, 3)],
    ids=["5", "8", "before-any", "augmented"],
)
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, overrides, at):
    whole = train(tmp_path / "whole", *overrides)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", *overrides, **kill(at))
    resumed = train(tmp_path / "killed", *overrides, "trainer.resume=auto")
    assert_same_run(whole, resumed)


def test_a_strength_that_grows_goes_on_where_it_was(tmp_path):
    r"""Of a loss that attacks: its noise, its mixtures and its weight are functions of the step."""
    overrides = ["data=digits", "model=classifier", "loss=smooth_mix", "loss.warmup=1", *TOY[4:]]
    overrides += ["trainer.steps=4", "trainer.checkpoint_every=2", "trainer.keep_last=9"]
    whole = train(tmp_path / "whole", *overrides)
    copy = shutil.copytree(whole, tmp_path / "copy", symlinks=True)
    resumed = train(copy, *overrides, f"trainer.resume={copy}/checkpoints/step_00000002")
    assert_same_run(whole, resumed)


def test_a_monitor_that_fails_costs_no_step(tmp_path):
    overrides = [*TOY, "trainer.steps=4", "trainer.checkpoint_every=4"]
    whole = train(tmp_path / "whole", *overrides)
    with pytest.raises(RuntimeError, match="no space left"):
        train(tmp_path / "failed", *overrides, preview={"_target_": "tiny.Fails", "every": 3})
    assert (tmp_path / "failed" / "checkpoints" / "last").resolve().name == "step_00000003"
    assert_same_run(whole, train(tmp_path / "failed", *overrides, "trainer.resume=auto"))


def test_resuming_from_an_older_checkpoint_drops_the_later_lines(tmp_path):
    overrides = [*TOY, "trainer.steps=6", "trainer.checkpoint_every=2", "trainer.keep_last=9"]
    whole = train(tmp_path / "a", *overrides)
    before = numbers(whole)
    again = train(tmp_path / "a", *overrides, f"trainer.resume={whole}/checkpoints/step_00000002")
    assert numbers(again) == before
    assert [line["step"] for line in before] == [1, 2, 3, 4, 5, 6]


def test_what_is_written_after_going_back_is_kept(tmp_path):
    overrides = [*TOY, "trainer.steps=6", "trainer.checkpoint_every=2", "trainer.keep_last=3"]
    folder = train(tmp_path / "a", *overrides)
    train(folder, *TOY, "trainer.steps=3", "trainer.keep_last=2", f"trainer.resume={folder}/checkpoints/step_00000002")
    assert (folder / "checkpoints" / "last").resolve().name == "step_00000003"
    assert (folder / "checkpoints" / "last" / "state.json").exists()


def test_a_torn_last_line_is_dropped(tmp_path):
    overrides = [*TOY, "trainer.steps=2", "trainer.checkpoint_every=2"]
    folder = train(tmp_path, *overrides)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    train(folder, *overrides[:-2], "trainer.checkpoint_every=2", "trainer.steps=3", "trainer.resume=auto")
    assert [line["step"] for line in numbers(folder)] == [1, 2, 3]


def test_a_finished_run_is_left_as_it_is(tmp_path):
    overrides = [*TOY, "trainer.steps=2", "trainer.resume=auto"]
    folder = train(tmp_path, *overrides)
    before = weights(folder), numbers(folder)
    train(folder, *overrides)
    assert all(torch.equal(weights(folder)[k], v) for k, v in before[0].items())
    assert numbers(folder) == before[1]


def test_the_first_weights_are_a_function_of_the_seed(tmp_path):
    overrides = [*TOY, "trainer.steps=1"]
    runs = [train(tmp_path / str(i), *overrides, f"seed={seed}") for i, seed in enumerate((3, 3, 4))]
    first, same, other = (weights(run)["network.first.weight"] for run in runs)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_equals_the_whole_batch(tmp_path, accumulate):
    r"""The same samples, noise and levels; float32 sums in another order (eps keeps Adam from magnifying rounding)."""
    overrides = [*TOY, "trainer.steps=5", "+trainer.optimizer.eps=1e-4", "trainer.clip=null"]
    whole = train(tmp_path / "1", *overrides)
    parts = train(tmp_path / "n", *overrides, f"trainer.accumulate={accumulate}")
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=1e-4, atol=2e-6)
    for line, other in zip(numbers(whole), numbers(parts), strict=True):  # Adam hides a factor, the norm does not
        assert line == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_noise_levels_are_stratified_over_the_global_batch(tmp_path, accumulate):
    loss = {"_target_": "tiny.Recorder"}
    train(tmp_path, *TOY, "trainer.steps=3", f"trainer.accumulate={accumulate}", loss=loss)
    assert sorted(Recorder.seen) == [0, 1, 2]
    for quantiles in Recorder.seen.values():
        assert [int(q * 8) for q in sorted(quantiles)] == list(range(8))
    assert Recorder.seen[0] != Recorder.seen[1]


class FailsOnce(Hook):
    r"""Fails at its first call, then writes its steps down."""

    failed: ClassVar[bool] = False
    seen: ClassVar[list[int]] = []

    def __call__(self, moment):
        if not FailsOnce.failed:
            FailsOnce.failed = True
            raise RuntimeError("no space left")
        FailsOnce.seen.append(moment.step)


def test_the_hooks_of_a_step_at_which_one_failed_run_when_the_run_goes_on(tmp_path):
    FailsOnce.failed, FailsOnce.seen = False, []
    overrides = [
        *TOY,
        "trainer.steps=4",
        "trainer.checkpoint_every=4",
        "data.validation=0.2",
        "early_stopping.every=2",
        "early_stopping.n=20",
    ]
    hook = {"preview": {"_target_": f"{__name__}.FailsOnce", "every": 4}}
    whole = train(tmp_path / "whole", *overrides)
    with pytest.raises(RuntimeError, match="no space left"):
        train(tmp_path / "failed", *overrides, **hook)
    train(tmp_path / "failed", *overrides, "trainer.resume=auto", **hook)
    assert FailsOnce.seen == [4]
    assert_same_run(whole, tmp_path / "failed")  # the monitor before it did not run again
    train(tmp_path / "failed", *overrides, "trainer.resume=auto", **hook)
    assert FailsOnce.seen == [4]


def test_a_copy_that_followed_links_goes_on(tmp_path):
    overrides = [*TOY, "trainer.checkpoint_every=2", "trainer.steps=6"]
    whole = train(tmp_path / "whole", *overrides)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", *overrides, **kill(5))
    shutil.copytree(tmp_path / "part", tmp_path / "copy", symlinks=False)
    assert not (tmp_path / "copy" / "checkpoints" / "last").is_symlink()
    assert_same_run(whole, train(tmp_path / "copy", *overrides, "trainer.resume=auto"))
    assert (tmp_path / "copy" / "checkpoints" / "last").is_symlink()


def test_a_run_that_goes_on_in_a_new_folder_knows_what_was_measured(tmp_path):
    overrides = [
        *TOY,
        "trainer.checkpoint_every=2",
        "data.validation=0.2",
        "early_stopping.every=2",
        "early_stopping.n=20",
    ]
    old = train(tmp_path / "old", *overrides, "trainer.steps=4")
    new = train(tmp_path / "new", *overrides, "trainer.steps=6", f"trainer.resume={old}/checkpoints/last")
    assert [line["step"] for line in numbers(new) if "heldout_loss" in line] == [2, 4, 6]
    assert numbers(new)[: len(numbers(old))] == numbers(old)
    assert (new / "checkpoints" / "best_heldout" / "state.json").exists()


def test_a_run_goes_on_without_the_weights_that_it_began_with(tmp_path):
    overrides = [*TOY, "trainer.checkpoint_every=2"]
    first = train(tmp_path / "first", *overrides, "trainer.steps=2")
    overrides += [f"init={first}", "trainer.steps=4"]
    whole = train(tmp_path / "whole", *overrides)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", *overrides, **kill(3))
    shutil.rmtree(first)
    assert_same_run(whole, train(tmp_path / "part", *overrides, "trainer.resume=auto"))


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    overrides = [*TOY, "trainer.checkpoint_every=2"]
    train(tmp_path, *overrides, "trainer.steps=4")
    with pytest.raises(
        UserError, match=r"trainer.steps=3, but this run has already done 4 steps .* Set trainer.steps above 4"
    ):
        train(tmp_path, *overrides, "trainer.steps=3", "trainer.resume=auto")


def test_the_micro_batches_of_the_launcher_are_those_of_the_configuration(tmp_path, monkeypatch):
    overrides = [*TOY, "trainer.steps=2"]
    whole = train(tmp_path / "a", *overrides, "trainer.accumulate=4")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert_same_run(whole, train(tmp_path / "b", *overrides))


def test_an_optimizer_state_that_lacks_something_is_named(tmp_path):
    overrides = [*TOY, "trainer.checkpoint_every=2"]
    folder = train(tmp_path, *overrides, "trainer.steps=2")
    file = folder / "checkpoints" / "last" / "optimizer.safetensors"
    tensors = load_file(file)
    del tensors["0.exp_avg"]
    save_file(tensors, file)
    state = json.loads((file.parent / "state.json").read_text())
    write_state(file.parent, {key: state[key] for key in ("step", "skipped", "skipped_in_a_row", "optimizer")})
    with pytest.raises(UserError, match=r"the optimizer state of .* does not fit"):
        train(folder, *overrides, "trainer.steps=4", "trainer.resume=auto")


def test_weights_that_mean_something_else_are_refused(tmp_path):
    first = train(tmp_path / "first", *TOY, "trainer.steps=1")
    with pytest.raises(UserError, match=r"are for model.prediction=edm, this run has eps. Give model.prediction=edm"):
        train(tmp_path / "second", *TOY, "trainer.steps=1", f"init={first}", "model.prediction=eps")
    assert not (tmp_path / "second").exists()


def test_an_optimizer_that_keeps_other_things_of_other_parameters_goes_on(tmp_path):
    r"""Adafactor: rows and columns of matrices, variances of vectors."""
    adafactor = ["trainer.optimizer._target_=torch.optim.Adafactor"]
    adafactor += ["~trainer.optimizer.betas", "~trainer.optimizer.fused"]
    overrides = [*TOY, *adafactor, "trainer.checkpoint_every=2", "trainer.steps=4"]
    whole = train(tmp_path / "whole", *overrides)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", *overrides, **kill(3))
    assert_same_run(whole, train(tmp_path / "part", *overrides, "trainer.resume=auto"))
