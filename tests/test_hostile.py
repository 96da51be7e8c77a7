r"""Checkpoints from elsewhere: whatever they claim, the answer is one message, soon and in little memory."""

import os
import re
import resource
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

import scoregen
from scoregen import foreign, storage
from scoregen.checkpoint_files import write_state
from scoregen.errors import UserError
from scoregen.models import MLP, Classifier, UNet, ViTClassifier

SDE = {"_target_": "scoregen.sde.VP"}
NETWORKS = {
    "MLP": (MLP, {"shape": [2], "width": 8, "depth": 1}),
    "UNet": (UNet, {"shape": [1, 8, 8], "channels": [4], "layers": 1}),
    "Classifier": (Classifier, {"shape": [1, 8, 8], "num_classes": 3, "channels": [4], "blocks": [1]}),
    "ViTClassifier": (ViTClassifier, {"shape": [1, 8, 8], "num_classes": 3, "width": 8, "depth": 1, "heads": 2}),
}


class Around(nn.Module):
    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def write(folder, model: nn.Module, config: object, extra=None):
    r"""A checkpoint as whoever crafts one would write it, digests and all."""
    folder.mkdir(exist_ok=True)
    for name in ("model", "ema"):
        save_file({**model.state_dict(), **(extra or {})}, folder / f"{name}.safetensors")
    (folder / "config.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    write_state(folder, {"step": 1, "skipped": 0, "skipped_in_a_row": 0, "optimizer": {}})
    return folder


def crafted(folder, kind: str, **claimed: object):
    r"""Small weights of a network beside the configuration of another one."""
    make, arguments = NETWORKS[kind]
    node = {"_target_": f"scoregen.models.{kind}", **arguments, **claimed}
    if kind in ("MLP", "UNet"):
        config = {"model": {"_target_": "scoregen.models.Denoiser", "network": node}, "sde": SDE}
        return write(folder, Around(network=make(**arguments)), config)
    return write(folder, make(**arguments), {"model": node})


def refused(folder, **options: object) -> str:
    r"""The message of a refusal, in little time and memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        scoregen.load(folder, **options)
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_model_as_large_as_its_weights_is_built(tmp_path, kind):
    model = scoregen.load(crafted(tmp_path, kind))
    saved = load_file(tmp_path / "ema.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "kind, claimed",
    [
        ("MLP", {"width": 30_000}),  # 10^9 parameters
        ("MLP", {"depth": 10**7}),
        ("MLP", {"depth": 60_000}),
        ("MLP", {"num_classes": 10**30}),
        ("UNet", {"shape": [10**9, 8, 8]}),
        ("UNet", {"layers": 10**7}),
        ("UNet", {"layers": 60_000}),
        ("UNet", {"channels": [60_000, 60_000]}),
        ("UNet", {"shape": [1, 60_000, 60_000], "patch_size": 60_000}),
        ("ViTClassifier", {"width": 60_000}),
        ("ViTClassifier", {"shape": [1, 60_000, 60_000]}),
        ("Classifier", {"blocks": [60_000]}),
        ("Classifier", {"shape": [1, 60_000, 60_000], "hidden": 60_000}),
    ],
)
def test_a_model_that_its_weights_cannot_be_is_refused_from_their_header(tmp_path, kind, claimed):
    text = refused(crafted(tmp_path, kind, **claimed))
    assert text.startswith("checkpoint: ")
    assert "larger model than its weights" in text or "more than its weights have" in text


def test_a_number_that_torch_refuses_is_one_line(tmp_path):
    assert refused(crafted(tmp_path, "ViTClassifier", mlp_ratio=1e300)).startswith("model: ")


def test_a_model_that_computes_while_it_is_built_is_bounded_too(tmp_path):
    network = {"_target_": "scoregen.models.MLP", **NETWORKS["MLP"][1]}
    inner = {"_target_": "scoregen.models.Denoiser", "network": network, "sde": SDE}
    config = {"model": {"_target_": "scoregen.models.Clamp", "denoiser": inner}}
    weights = Around(denoiser=Around(network=MLP(**NETWORKS["MLP"][1])))
    assert type(scoregen.load(write(tmp_path, weights, config))).__name__ == "Clamp"
    for claimed in ({"width": 60_000}, {"depth": 60_000}):
        network |= claimed
        assert "larger model than its weights" in refused(write(tmp_path, weights, config))


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    "text, reason",
    [
        (LAUGHS + "model: *a9", r"it has an alias, \*a0"),
        ("model: &a [*a]", r"it has an alias, \*a"),
        ("model: &a {b: *a}", r"it has an alias, \*a"),
        ("model: " + "[" * 10**6, "nest|level"),
        ("model: " + "{a: " * 250_000, "nest|level"),
        ("? " * 400_000, "nested more than 32 levels deep"),
        ("model: [" + "1," * 300_000 + "]", "more than 20000 nodes"),
        ("---\n" * 250_000, "single document|more than 20000 nodes"),
        ("model: " + "x" * 10**6, "a text of more than 4096 characters"),
        ("model: " + "1:" * 30_000 + "1", "a text of more than 4096 characters"),
        ("#" * 2**21, "more than 1048576 bytes"),
        ("model: !" + "a" * 900_000 + " x", "could not determine a constructor"),
        ("model: 2001-99-99", "month must be in 1..12"),
        ("? [a]\n: b", "unhashable"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_a_hostile_configuration_is_refused(tmp_path, text, reason):
    crafted(tmp_path, "MLP")
    (tmp_path / "config.yaml").write_text(text)
    write_state(tmp_path, {"step": 1, "skipped": 0, "skipped_in_a_row": 0, "optimizer": {}})
    found = refused(tmp_path)
    assert "config.yaml' is missing or damaged" in found and re.search(reason, found)


@pytest.mark.parametrize("name", ["config.yaml", "state.json", "ema.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(tmp_path, name, kind):
    path = crafted(tmp_path, "MLP") / name
    path.unlink()
    {"pipe": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero"), "folder": path.mkdir}[kind]()
    assert ("is not a checkpoint" if name == "state.json" else "it is not a regular file") in refused(tmp_path)


MEAN, VARIANCE = {"sde.data_mean": torch.zeros(2)}, {"sde.data_var": torch.ones(2)}


@pytest.mark.parametrize(
    "extra, text",
    [
        (MEAN, "must be 'sde.data_mean' and 'sde.data_var', of one shape, got sde.data_mean (2,)."),
        (VARIANCE, "got sde.data_var (2,)."),
        ({"sde.beta": torch.zeros(1)}, "got sde.beta (1,)."),
        (MEAN | VARIANCE | {"sde.beta": torch.zeros(1)}, "got sde.beta (1,), sde.data_mean (2,), sde.data_var (2,)."),
        ({"sde.data_mean": torch.zeros(9999, 1), "sde.data_var": torch.ones(1, 9999)}, "of one shape, got"),
        (MEAN | {"sde.data_var": -torch.ones(2)}, "are no moments: moments must be finite with var >= 0"),
        (VARIANCE | {"sde.data_mean": torch.full((2,), torch.nan)}, "are no moments: moments must be finite"),
    ],
    ids=["mean", "variance", "unknown", "more", "outer", "negative", "nan"],
)
def test_moments_of_the_data_come_in_pairs(tmp_path, extra, text):
    crafted(tmp_path, "MLP")
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    weights = Around(network=MLP(**NETWORKS["MLP"][1]))
    assert text in refused(write(tmp_path, weights, config, extra))


def test_a_classifier_has_no_moments(tmp_path):
    crafted(tmp_path, "Classifier")
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    weights = Classifier(**NETWORKS["Classifier"][1])
    assert "must be none, since its model has no process" in refused(write(tmp_path, weights, config, MEAN | VARIANCE))


@pytest.mark.parametrize("pipeline", ["owner/name", "/etc", "../elsewhere", "."])
def test_nothing_is_fetched_or_read_outside_of_a_checkpoint(tmp_path, monkeypatch, pipeline):
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("a name was looked up"))
    monkeypatch.setattr("scoregen.models.latent_diffusion.read_pipeline", lambda *a: pytest.fail("a pipeline was read"))
    node = {"_target_": "scoregen.models.LatentDiffusion", "pipeline": pipeline}
    for config in ({"model": node}, {"model": {"_target_": "scoregen.models.Clamp", "denoiser": node}}):
        write(tmp_path / "run", nn.Linear(2, 2), config)
        assert f"its model reads the pipeline '{pipeline}'" in refused(tmp_path / "run")
        assert f"allow it with scoregen.load(..., trust=['{pipeline}'])" in refused(tmp_path / "run", trust=["other"])


def test_a_trusted_place_is_read_and_so_is_one_inside_the_checkpoint(tmp_path, monkeypatch):
    asked = []

    def read(place, revision):
        asked.append(place)
        raise UserError("read")

    monkeypatch.setattr("scoregen.models.latent_diffusion.read_pipeline", read)
    node = {"_target_": "scoregen.models.LatentDiffusion", "pipeline": "owner/name", "rank": 2}
    write(tmp_path, nn.Linear(2, 2), {"model": node})
    assert "read" in refused(tmp_path, trust=["owner/name"])
    inside = str(tmp_path / "pipeline")
    write(tmp_path, nn.Linear(2, 2), {"model": node | {"pipeline": inside}})
    assert "read" in refused(tmp_path)
    assert asked == ["owner/name", inside]
    write(tmp_path, nn.Linear(2, 2), {"model": node | {"rank": 10**6}})
    assert "model.rank=1000000 is more than" in refused(tmp_path, trust=["owner/name"])


@pytest.mark.parametrize("step", ["abc", None, -5, 1.5, True])
def test_a_step_that_is_no_number_is_refused(tmp_path, step):
    crafted(tmp_path, "MLP")
    write_state(tmp_path, {"step": step, "skipped": 0, "skipped_in_a_row": 0, "optimizer": {}})
    assert f"step must be a whole number >= 0, got {step!r}" in refused(tmp_path)


@pytest.mark.parametrize("text", ["[" * 10**6, "9" * 10**6, "\x00", ""], ids=["deep", "long", "binary", "empty"])
def test_a_hostile_state_is_refused(tmp_path, text):
    (crafted(tmp_path, "MLP") / "state.json").write_text(text)
    assert "state.json' is missing or damaged" in refused(tmp_path)


def test_what_is_written_has_no_aliases_and_is_read_back(tmp_path):
    shared = [1, 2.5, "x: y"]
    config = {"model": {"a": shared, "b": shared}, "none": None}
    storage.write_yaml(tmp_path / "config.yaml", config)
    assert foreign.read_yaml(tmp_path / "config.yaml") == config
