r"""What a run folder may be used for."""

import pytest
import yaml

from scoregen.checkpoint_files import write_state
from scoregen.errors import UserError
from scoregen.training.run import inherit, prepare, write_config

CONFIG = {
    "seed": 0,
    "model": {"width": 3},
    "data": {"root": "a", "n": 5},
    "trainer": {"steps": 5, "batch_size": 8},
    "logger": {"a": 1},
}


def write_checkpoint(folder, step: int):
    r"""Files that are whole; what the weights are does not matter here."""
    write_config(folder, CONFIG)
    for name in ("model", "ema", "optimizer"):
        (folder / f"{name}.safetensors").write_bytes(b"weights")
    write_state(folder, {"step": step, "skipped": 0, "skipped_in_a_row": 0, "optimizer": {}})
    return folder


def changed(**values) -> dict:
    return CONFIG | {k: {**CONFIG[k], **v} if isinstance(v, dict) else v for k, v in values.items()}


def test_a_free_folder_starts_at_the_first_step(tmp_path):
    assert prepare(tmp_path, CONFIG, None) is None
    assert prepare(tmp_path, CONFIG, "auto") is None


def test_a_folder_that_holds_a_run_is_refused_unless_resumed(tmp_path):
    write_config(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r"holds another run. Give trainer.resume=auto to continue it, or another"):
        prepare(tmp_path, CONFIG, None)
    assert prepare(tmp_path, CONFIG, "auto") is None  # killed before its first checkpoint


@pytest.mark.parametrize(
    "new, key, old_value, new_value",
    [
        (changed(seed=1), "seed", "0", "1"),
        (changed(trainer={"batch_size": 16}), "trainer.batch_size", "8", "16"),
        (changed(data={"n": 6}), "data.n", "5", "6"),
        ({**CONFIG, "loss": {"std": 2}}, "loss.std", "None", "2"),
    ],
)
def test_a_changed_configuration_names_the_key_and_both_values(tmp_path, new, key, old_value, new_value):
    write_config(tmp_path, CONFIG)
    with pytest.raises(
        UserError, match=rf"{key}: the run in .* has {old_value}, now it is {new_value}\. .*(old value)"
    ):
        prepare(tmp_path, new, "auto")


@pytest.mark.parametrize(
    "new",
    [
        changed(trainer={"steps": 50, "log_every": 3, "accumulate": 2, "workers": 1}),
        changed(logger={"a": 2}),
        changed(data={"root": "b"}),
        {**CONFIG, "preview": {"every": 3}, "dry_run": True, "early_stopping": {"every": 9}},
    ],
    ids=["trainer", "logger", "root", "hooks"],
)
def test_what_does_not_change_the_computation_may_change(tmp_path, new):
    write_config(tmp_path, CONFIG)
    assert prepare(tmp_path, new, "auto") is None


def test_a_checkpoint_of_another_run_is_not_continued_in_an_occupied_folder(tmp_path):
    for name in ("a", "b"):
        write_config(tmp_path / name, CONFIG)
    step = write_checkpoint(tmp_path / "a" / "checkpoints" / "step_00000005", 5)
    assert prepare(tmp_path / "a", CONFIG, str(step)) == step
    assert prepare(tmp_path / "c", CONFIG, str(step)) == step
    with pytest.raises(UserError, match="holds another run than the checkpoint"):
        prepare(tmp_path / "b", CONFIG, str(step))


def test_a_run_without_its_link_goes_on_from_its_newest_step(tmp_path):
    write_config(tmp_path, CONFIG)
    for step in (3, 5):
        write_checkpoint(tmp_path / "checkpoints" / f"step_{step:08d}", step)
    assert prepare(tmp_path, CONFIG, "auto").name == "step_00000005"


def test_a_missing_checkpoint_names_the_key_and_its_neighbour(tmp_path):
    (tmp_path / "run_1").mkdir()
    with pytest.raises(UserError, match=r"trainer.resume: '.*run_2' does not exist. Did you mean '.*run_1'\?"):
        prepare(tmp_path / "new", CONFIG, str(tmp_path / "run_2"))


def test_config_is_written_whole(tmp_path):
    write_config(tmp_path / "new", CONFIG)
    assert yaml.safe_load((tmp_path / "new" / "config.yaml").read_text()) == CONFIG
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["config.yaml"]


def test_checkpoints_on_another_disk_are_continued(tmp_path):
    step = write_checkpoint(tmp_path / "far" / "checkpoints" / "step_00000005", 5)
    (step.parent / "last").symlink_to(step.name)
    write_config(tmp_path / "run", CONFIG)
    (tmp_path / "run" / "checkpoints").symlink_to(step.parent)
    start = prepare(tmp_path / "run", CONFIG, "auto")
    assert start.resolve() == step.resolve()
    inherit(tmp_path / "run", start)


def test_a_run_behind_a_link_is_continued(tmp_path):
    step = write_checkpoint(tmp_path / "far" / "run" / "checkpoints" / "step_00000005", 5)
    write_checkpoint(step.parent / "best", 5)
    (tmp_path / "outputs").symlink_to(tmp_path / "far")
    for last in (False, True):
        if last:
            (step.parent / "last").symlink_to(step.name)
        start = prepare(tmp_path / "outputs" / "run", CONFIG, "auto")
        assert start.resolve() == step.resolve()
        inherit(tmp_path / "outputs" / "run", start)  # nothing is to be taken along


def test_checkpoints_without_a_configuration_are_not_overwritten(tmp_path):
    step = write_checkpoint(tmp_path / "checkpoints" / "step_00000005", 5)
    with pytest.raises(UserError, match=r"holds another run. Give trainer.resume=auto"):
        prepare(tmp_path, CONFIG, None)
    with pytest.raises(UserError, match=r"seed: the run in .* has 0, now it is 1"):
        prepare(tmp_path, changed(seed=1), "auto")
    assert prepare(tmp_path, CONFIG, "auto") == step


def test_of_two_runs_that_begin_in_one_folder_the_second_is_refused(tmp_path):
    assert prepare(tmp_path, CONFIG, None) is None and prepare(tmp_path, changed(seed=1), None) is None
    write_config(tmp_path, CONFIG)
    with pytest.raises(UserError, match="another run has just begun in"):
        write_config(tmp_path, changed(seed=1))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == CONFIG
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
