r"""Checkpoints at a URL are whole or absent, and only what is asked for is fetched."""

import json
import shutil
import uuid

import pytest
import torch
from tiny import TOY, numbers, train, weights

import scoregen
from scoregen.checkpoint_files import find
from scoregen.errors import UserError
from scoregen.remote import Remote, fetched, newest

STEPS = [*TOY, "trainer.checkpoint_every=2", "trainer.keep_last=2"]


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = uuid.uuid4().hex
    return f"memory://{name}/run" if request.param == "memory" else f"file://{tmp_path}/{name}"


def made(folder, names=("config.yaml", "model.safetensors")):
    r"""A folder with files and the digests of them."""
    from scoregen.storage import digest

    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f"{name} of {folder.name}")
    (folder / "state.json").write_text(json.dumps({"files": {name: digest(folder / name) for name in names}}))
    return folder


def test_a_run_goes_on_elsewhere_from_its_mirror_bit_for_bit(tmp_path, url):
    whole = train(tmp_path / "whole", *STEPS, "trainer.steps=6")
    killed = {"preview": {"_target_": "tiny.Kill", "every": 5}}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", *STEPS, "trainer.steps=6", f"trainer.mirror={url}", **killed)
    remote = Remote(url, "x")
    assert remote.names("checkpoints") == ["last", "step_00000002", "step_00000004"]
    options = [*STEPS, "trainer.steps=6", f"trainer.mirror={url}", f"trainer.resume={url}"]
    train(tmp_path / "b", *options)
    for name in ("model", "ema", "optimizer"):
        assert all(
            torch.equal(value, weights(tmp_path / "b", name)[key]) for key, value in weights(whole, name).items()
        )
    assert numbers(tmp_path / "b") == [line for line in numbers(whole) if line["step"] > 4]
    assert remote.names("checkpoints") == ["last", "step_00000002", "step_00000004", "step_00000006"]
    loaded = scoregen.load(url)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, weights(whole, "ema")[key])


def test_what_the_run_deletes_is_deleted_there_and_nothing_else(tmp_path, url):
    remote = Remote(url, "x")
    remote.upload(made(tmp_path / "other" / "kept"), "other/step_00000001")
    train(tmp_path / "a", *STEPS, "trainer.steps=8", f"trainer.mirror={url}")
    assert remote.names("checkpoints") == ["last", "step_00000006", "step_00000008"]
    assert remote.read("checkpoints/last") == b"step_00000008"
    assert remote.manifest("other/step_00000001") is not None


def test_a_new_run_does_not_write_over_another_one(tmp_path, url):
    train(tmp_path / "a", *STEPS, "trainer.steps=2", f"trainer.mirror={url}")
    with pytest.raises(UserError, match=r"trainer.mirror: '.*' holds checkpoints of another run \(step_00000002\)"):
        train(tmp_path / "b", *STEPS, "trainer.steps=2", "seed=1", f"trainer.mirror={url}")


def test_a_checkpoint_without_its_last_file_does_not_count(tmp_path, url):
    remote = Remote(url, "trainer.resume")
    for step in (1, 2):
        remote.upload(made(tmp_path / f"step_{step:08d}"), f"checkpoints/step_{step:08d}")
    remote.write("checkpoints/last", b"step_00000002")
    assert newest(remote) == "checkpoints/step_00000002"
    remote.files.rm_file(remote._place("checkpoints/step_00000002/state.json"))
    assert newest(remote) == "checkpoints/step_00000001"
    remote.remove("checkpoints/step_00000001")
    with pytest.raises(UserError, match=r"trainer.resume: '.*' has no whole checkpoint"):
        fetched(url, "trainer.resume")


def test_damage_on_the_way_is_found_and_a_local_copy_is_used_again(tmp_path, url):
    remote = Remote(url, "checkpoint")
    remote.upload(made(tmp_path / "step_00000001"), "checkpoints/step_00000001")
    copy = fetched(url, "checkpoint")
    before = (copy / "model.safetensors").stat().st_mtime_ns
    assert fetched(url, "checkpoint") == copy and (copy / "model.safetensors").stat().st_mtime_ns == before
    (copy / "model.safetensors").write_text("damaged here")
    assert (fetched(url, "checkpoint") / "model.safetensors").read_text() == "model.safetensors of step_00000001"
    remote.write("checkpoints/step_00000001/model.safetensors", b"damaged there")
    shutil.rmtree(copy)
    with pytest.raises(UserError, match=r"checkpoint: '.*/model.safetensors' is not what was written"):
        fetched(url, "checkpoint")
    assert not copy.exists()


def test_only_listed_files_are_fetched_and_none_outside_the_folder(tmp_path, url):
    remote = Remote(url, "checkpoint")
    remote.upload(made(tmp_path / "step_00000001"), "step_00000001")
    remote.write("step_00000001/more", b"large")
    copy = find(f"{url}/step_00000001")
    assert sorted(path.name for path in copy.iterdir()) == ["config.yaml", "model.safetensors", "state.json"]
    remote.write("step_00000001/state.json", json.dumps({"files": {"../../evil": "0"}}).encode())
    with pytest.raises(UserError, match=r"lists a file outside its folder: '../../evil'"):
        fetched(f"{url}/step_00000001", "checkpoint")


def test_an_interrupted_upload_leaves_no_checkpoint_and_the_next_one_mends_it(tmp_path, url, monkeypatch):
    remote = Remote(url, "trainer.mirror")
    folder = made(tmp_path / "step_00000001")
    put = type(remote.files).put_file

    def fails(self, source, target, **options):
        if source.endswith("model.safetensors"):
            raise ConnectionError("reset by peer")
        return put(self, source, target, **options)

    monkeypatch.setattr(type(remote.files), "put_file", fails)
    with pytest.raises(UserError, match=r"trainer.mirror: '.*' failed \(ConnectionError: reset by peer\)"):
        remote.upload(folder, "checkpoints/step_00000001")
    assert newest(remote) is None
    monkeypatch.undo()
    remote.upload(folder, "checkpoints/step_00000001")
    assert newest(Remote(url, "x")) == "checkpoints/step_00000001"


def test_a_mirror_that_cannot_be_reached_costs_no_step_but_the_status(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scoregen.remote.Remote.upload", _unreachable)
    with pytest.raises(UserError, match=r"trainer.mirror: gone. The checkpoints in .* are whole. The next run with"):
        train(tmp_path / "a", *STEPS, "trainer.steps=4", "trainer.mirror=memory://unreachable")
    assert "trainer.mirror: gone. It is tried again with the next checkpoint." in capsys.readouterr().err
    assert (tmp_path / "a" / "checkpoints" / "last").resolve().name == "step_00000004"
    monkeypatch.undo()
    train(tmp_path / "a", *STEPS, "trainer.steps=4", "trainer.mirror=memory://unreachable", "trainer.resume=auto")
    assert "step_00000004" in Remote("memory://unreachable", "x").names("checkpoints")


def _unreachable(self, folder, checkpoint):
    raise UserError("trainer.mirror: gone.")


def test_urls_that_cannot_be_used_are_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"trainer.mirror: 'sss://a' cannot be used: Protocol not known: sss"):
        train(tmp_path / "a", *STEPS, "trainer.steps=1", "trainer.mirror=sss://a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(UserError, match=r"trainer.mirror: must be a URL such as s3://BUCKET/RUN, got 'bucket/run'"):
        train(tmp_path / "b", *STEPS, "trainer.steps=1", "trainer.mirror=bucket/run")
