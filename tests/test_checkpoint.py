r"""Checkpoints: what is written is read back; what is damaged, foreign or hostile is refused with one message."""

import json
import shutil

import pytest
import torch
import yaml
from tiny import TOY, train, weights

import scoregen
from scoregen import checkpoint
from scoregen.checkpoint_files import write_state
from scoregen.errors import UserError

SHORT = [*TOY, "trainer.steps=2", "trainer.checkpoint_every=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run", *SHORT, "data_moments=scalar")


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished / "checkpoints" / "step_00000002", tmp_path / "copy")


def write_config(folder, config: object) -> None:
    r"""Another config.yaml, and the digests that go with it, as whoever crafts a checkpoint would write them."""
    (folder / "config.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    sign(folder, json.loads((folder / "state.json").read_text()))


def sign(folder, state: dict) -> None:
    write_state(folder, {key: value for key, value in state.items() if key not in ("format", "files", "sha256")})


def test_a_loaded_model_has_the_weights_the_process_and_the_moments_of_the_run(finished):
    for name in ("ema", "model"):
        model, saved = scoregen.load(finished, weights=name), weights(finished, name)
        assert not model.training
        assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
        assert torch.equal(model.sde.data_mean, saved["sde.data_mean"]) and model.sde.data_var > 0
    assert not torch.equal(*(weights(finished, name)["network.last.weight"] for name in ("ema", "model")))


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/last", "checkpoints/step_00000002"])
def test_a_run_folder_means_its_last_checkpoint(finished, place):
    assert checkpoint.find(finished / place).resolve().name == "step_00000002"


def test_the_last_ones_and_every_nth_are_kept(tmp_path):
    folder = train(tmp_path, *TOY, "trainer.steps=9", "trainer.checkpoint_every=1", "trainer.keep_every=4")
    kept = sorted(p.name for p in (folder / "checkpoints").iterdir())
    assert kept == ["last", *(f"step_0000000{k}" for k in (4, 8, 9))]


def test_an_interrupted_write_leaves_the_old_checkpoint(finished, monkeypatch):
    model = scoregen.load(finished)
    folder = finished / "checkpoints" / "step_00000002"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    monkeypatch.setattr("json.dumps", lambda *a, **k: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)") as caught:
        contents = checkpoint.contents_of(model, {}, torch.optim.AdamW(model.parameters()))
        checkpoint.save(folder, contents, config={}, state={})
    assert "\n" not in str(caught.value)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert not [path for path in folder.parent.iterdir() if path.name.endswith(".partial")]


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("part", ["ema.safetensors", "config.yaml", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "garbage"])
def test_a_damaged_file_is_named(copy, part, damage):
    path = copy / part
    if damage == "missing":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"\xff\xfe{[,")
    elif part == "config.yaml":
        path.write_text(path.read_text() + "\nmodel: {")
    else:
        truncate(path)
    text = "is not a checkpoint" if (part, damage) == ("state.json", "missing") else f"{part}' is (missing or )?damaged"
    with pytest.raises(UserError, match=text) as caught:
        scoregen.load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"])
def test_resuming_from_a_damaged_checkpoint_is_refused(finished, copy, tmp_path, part):
    truncate(copy / part)
    with pytest.raises(UserError, match=f"{part}' is (missing or )?damaged"):
        train(tmp_path / "new", *SHORT, "data_moments=scalar", "trainer.steps=3", f"trainer.resume={copy}")


@pytest.mark.parametrize(
    "state, text",
    [
        ({"format": "other-2", "step": 1}, "has format 'other-2', this version reads 'scoregen-checkpoint-3'"),
        ([1], r"has format \[1\]"),
        ({"format": checkpoint.FORMAT}, "step must be a whole number >= 0, got None"),
    ],
    ids=["format", "list", "keys"],
)
def test_a_checkpoint_of_another_kind_is_refused(copy, state, text):
    (copy / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=text):
        scoregen.load(copy)


@pytest.mark.parametrize("config", ["[1, 2]", "5", "{}", "{model: 3}", "{model: {width: 3}}", "{model: [1]}"])
def test_a_configuration_without_a_model_is_refused(copy, config):
    write_config(copy, config)
    with pytest.raises(UserError, match="must be a mapping"):
        scoregen.load(copy)


def test_weights_of_another_model_are_refused_in_one_line(copy):
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["model"]["network"]["width"] = 16
    write_config(copy, config)
    with pytest.raises(UserError, match=r"do not fit the model: '.*' is \(8,?.*\) in the file and \(16,?.*\) in the"):
        scoregen.load(copy)
    config["model"]["network"] |= {"width": 8, "depth": 2}
    write_config(copy, config)
    with pytest.raises(UserError, match=r"the file lacks 'network.into.1.bias' and 3 more") as caught:
        scoregen.load(copy)
    assert "\n" not in str(caught.value)


def test_unknown_weights_are_refused(finished):
    with pytest.raises(ValueError, match=r"weights: must be ema, model or ema:LENGTH \(ema:0.08\), got 'last'"):
        scoregen.load(finished, weights="last")


HOSTILE = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "torch.load",
    "torch.hub.load",
    "torch.nn.Linear",
    "scoregen.models.unet.math.gcd",
    "scoregen.models.unet.nn.Linear",
    "scoregen.models.unet.Tensor",
    "scoregen.models.interop.wrapping.from_diffusers",
    "scoregen.models",
    "scoregen.sde.path.torch.load",
    "scoregen.checkpoint.save",
    "scoregen.jobs.train.Train",
    "scoregen.modelsx.Denoiser",
    "scoregen.models.__init__.os",
    "",
]


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize("place", ["model", "model.network", "sde", "sde.chart", "list", "partial"])
def test_a_crafted_checkpoint_builds_nothing(copy, tmp_path, monkeypatch, target, place):
    mark = tmp_path / "mark"
    evil = {"_target_": target, "command": f"touch {mark}"}
    config = yaml.safe_load((copy / "config.yaml").read_text())
    if place == "list":
        config["model"]["network"]["shape"] = [2, evil]
    elif place == "partial":
        config["model"] = {**evil, "_partial_": True}
    elif "." in place:
        outer, inner = place.split(".")
        config[outer][inner] = evil
    else:
        config[place] = evil
    write_config(copy, config)
    monkeypatch.setattr("os.system", lambda command: pytest.fail("os.system was called"))
    with pytest.raises(UserError, match=r"_target_: .*(is refused|cannot be found)"):
        scoregen.load(copy)
    assert not mark.exists()


def test_yaml_tags_are_not_obeyed(copy, tmp_path):
    write_config(copy, f"model: !!python/object/apply:os.system ['touch {tmp_path}/mark']\n")
    with pytest.raises(UserError, match="damaged"):
        scoregen.load(copy)
    assert not (tmp_path / "mark").exists()


def test_pickles_are_never_read(copy, monkeypatch):
    torch.save({"a": torch.zeros(1)}, copy / "ema.safetensors")
    sign(copy, json.loads((copy / "state.json").read_text()))
    monkeypatch.setattr("pickle.Unpickler", lambda *a, **k: pytest.fail("a pickle was read"))
    monkeypatch.setattr("torch.load", lambda *a, **k: pytest.fail("a pickle was read"))
    with pytest.raises(UserError, match=r"ema.safetensors' is missing or damaged"):
        scoregen.load(copy)


def test_a_new_run_may_start_from_the_averages_of_another(finished, tmp_path):
    overrides = [*SHORT, f"init={finished}", "trainer.optimizer.lr=0.0", "trainer.steps=1"]
    started = weights(train(tmp_path, *overrides))
    given = weights(finished, "ema")
    assert all(torch.equal(started[key], given[key]) for key in started)


def test_a_denoiser_without_a_process_is_refused(copy):
    config = yaml.safe_load((copy / "config.yaml").read_text())
    del config["sde"]
    write_config(copy, config)
    with pytest.raises(UserError, match="sde: the configuration has a denoiser and no process"):
        scoregen.load(copy)
