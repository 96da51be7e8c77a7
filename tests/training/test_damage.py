r"""Run folders with damage: the last whole checkpoint is used, the rest is said or refused in one line."""

import json
import shutil

import pytest
import torch
from tiny import TOY, numbers, train, weights

import scoregen
from scoregen import checkpoint
from scoregen.checkpoint_files import FILES, write_state
from scoregen.errors import UserError

RUN = [*TOY, "trainer.checkpoint_every=2", "trainer.keep_last=9"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run", *RUN, "trainer.steps=4")


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run", symlinks=True)


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": lambda last: (last / "ema.safetensors").write_bytes(b"x" * 10),
    "flipped": lambda last: flip(last / "model.safetensors"),
    "missing file": lambda last: (last / "optimizer.safetensors").unlink(),
    "empty": lambda last: [path.unlink() for path in last.iterdir()],
    "gone": shutil.rmtree,
    "bad state": lambda last: (last / "state.json").write_text("{]"),
    "other step": lambda last: (last / "state.json").write_text(
        (last / "state.json").read_text().replace('"step": 4', '"step": 3')
    ),
    "foreign config": lambda last: (last / "config.yaml").write_text("model: {_target_: scoregen.models.MLP}\n"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_last_checkpoint_is_passed_over_and_that_is_said(run, finished, damage, capsys):
    DAMAGE[damage](run / "checkpoints" / "step_00000004")
    second = run / "checkpoints" / "step_00000002"
    assert checkpoint.find(run) == second
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"'{second}' is used in its place" in said and "step_00000004" in said
    loaded = scoregen.load(run, weights="model").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights_at(second).items() if name in loaded)
    train(run, *RUN, "trainer.steps=4", "trainer.resume=auto")
    assert weights(run).keys() == weights(finished).keys()
    assert all(torch.equal(value, weights(finished)[name]) for name, value in weights(run).items())
    assert numbers(run) == numbers(finished)


def weights_at(folder) -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(folder / "model.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_a_named_checkpoint_is_refused(run, name):
    last = run / "checkpoints" / "last"
    flip(last / name)
    with pytest.raises(UserError, match=rf"{name}' is missing or damaged \(its content is not what was written"):
        train(run, *RUN, "trainer.steps=6", f"trainer.resume={last}")
    if name in ("ema.safetensors", "config.yaml"):
        with pytest.raises(UserError, match=rf"{name}' is missing or damaged"):
            scoregen.load(last)


def test_a_run_without_a_whole_checkpoint_is_refused(run):
    for path in (run / "checkpoints").glob("step_*"):
        (path / "state.json").unlink()
    for use in (lambda: train(run, *RUN, "trainer.steps=6", "trainer.resume=auto"), lambda: scoregen.load(run)):
        with pytest.raises(UserError, match=r"no checkpoint of '.*' is whole: '.*state.json' is missing or damaged"):
            use()
    assert len(numbers(run)) == 4


@pytest.mark.parametrize("gone", ["the folder", "what is in it"])
def test_a_log_without_its_checkpoints_is_not_started_over(run, gone):
    shutil.rmtree(run / "checkpoints")
    if gone == "what is in it":
        (run / "checkpoints").mkdir()
    before = (run / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match=r"has a log of 4 steps, but its checkpoints are gone. Put them back, or"):
        train(run, *RUN, "trainer.steps=4", "trainer.resume=auto")
    assert (run / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("text", ["{]", "5", '{"loss": 1.0}', "\x00\x1b[2J", '{"step": "x"}'])
def test_a_damaged_line_of_the_log_is_lost_alone_and_named(run, text, capsys):
    whole = numbers(run)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], text, *lines[2:]]) + "\n")
    train(run, *RUN, "trainer.steps=4", "trainer.resume=auto")
    assert numbers(run) == [whole[0], *whole[2:]]
    said = capsys.readouterr().err
    assert said.count("metrics.jsonl: line 2 of") == 1 and "is damaged and left out" in said


def test_a_binary_log_is_read_as_no_line(run, capsys):
    (run / "metrics.jsonl").write_bytes(bytes(range(256)))
    train(run, *RUN, "trainer.steps=4", "trainer.resume=auto")
    assert numbers(run) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("step", "abc"), ("step", None), ("step", -5), ("step", True), ("skipped", 1.5), ("optimizer", [1])],
)
def test_a_state_of_another_type_is_one_message(run, key, value):
    folder = run / "checkpoints" / "step_00000004"
    state = json.loads((folder / "state.json").read_text()) | {key: value}
    write_state(folder, {k: v for k, v in state.items() if k not in ("format", "files", "sha256")})
    with pytest.raises(UserError, match=rf"state.json' is missing or damaged \({key} must be a ") as caught:
        scoregen.load(folder)
    assert "\n" not in str(caught.value)


def test_moments_that_lack_one_are_one_message(tmp_path):
    from safetensors.torch import save_file

    folder = train(tmp_path / "run", *RUN, "trainer.steps=2", "data_moments=scalar") / "checkpoints" / "step_00000002"
    tensors = checkpoint.read_tensors(folder / "ema.safetensors")
    del tensors["sde.data_mean"]
    save_file(tensors, folder / "ema.safetensors")
    state = json.loads((folder / "state.json").read_text())
    write_state(folder, {k: v for k, v in state.items() if k not in ("format", "files", "sha256")})
    with pytest.raises(UserError, match=r"the moments of the data in .* must be 'sde.data_mean' and 'sde.data_var'"):
        scoregen.load(folder)
