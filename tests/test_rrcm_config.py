r"""The stages of rRCM as experiments: what each learns, at which sigma, and where it starts."""

from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from tiny import compose, job, mnist_like, train

from scoregen.config import build
from scoregen.errors import UserError

DATA = ("mnist", "fashion_mnist", "cifar10")
STAGES = ("pretrain", "probe", "finetune")


def composed(stage: str, data: str, *overrides: str) -> dict[str, Any]:
    r"""The configuration of a stage, or of the baseline (vit), by the command of docs/rrcm.md."""
    command = [f"+experiment=rrcm/{stage}", f"data={data}"]
    if data == "cifar10" and stage == "pretrain":
        command = ["+experiment=rrcm/cifar10_pretrain"]
    elif data == "cifar10":
        command = [f"+experiment=[rrcm/{stage},rrcm/cifar10]", "loss.noise_sigma=0.25"]
    return compose(*command, *overrides)


@pytest.mark.parametrize("name", DATA)
def test_each_stage_starts_from_the_last_and_selects_on_training_images(name):
    stages, before = {}, []
    for stage in STAGES:
        stages[stage] = composed(stage, name)
        before.append(HydraConfig.get().run.dir)
    assert [c["model"]["trainable"] for c in stages.values()] == [
        ["encoder", "projector"],
        ["head"],
        ["encoder", "head"],
    ]
    assert before == [f"outputs/rrcm_{name}_{stage}" for stage in STAGES]
    assert stages["probe"]["init"] == before[0]
    assert stages["finetune"]["init"] == f"{before[1]}/checkpoints/best"
    for config in stages.values():
        assert config["data"]["validation"] > 0
        build(config["data"] | {"root": "x"})
        build(config["loss"])
    assert all(stages[s]["accuracy"]["keep_best"] for s in ("probe", "finetune"))


@pytest.mark.parametrize(
    ("stage", "data"), [("probe", "mnist"), ("finetune", "mnist"), ("vit", "mnist"), ("vit", "fashion_mnist")]
)
def test_the_time_condition_follows_the_noise_of_the_loss(stage, data):
    assert composed(stage, data, "loss.noise_sigma=0.25")["model"]["noise_sigma"] == 0.25


@pytest.mark.parametrize("data", DATA)
def test_the_stages_of_one_data_set_build_the_same_network(data):
    keys = ("patch_size", "width", "depth", "heads", "hidden", "projection")
    models = [composed(stage, data)["model"] for stage in (*STAGES, "vit")]
    assert len({tuple(model[key] for key in keys) for model in models}) == 1


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["loss=representation"], r"loss: .*needs model.trainable=\[encoder,projector\], got \[encoder,head\]"),
        (["loss=cross_entropy"], "loss.noise_sigma: must be model.noise_sigma=0.5, .* got 0. Set both"),
    ],
    ids=["projector", "noise"],
)
def test_a_model_that_does_not_suit_the_loss_is_refused(overrides, text, tmp_path):
    mnist_like(tmp_path, "MNIST")
    with pytest.raises(UserError, match=text):
        train(
            tmp_path / "run", "data=mnist", f"data.root={tmp_path}", "model=vit_small", "preview.every=null", *overrides
        )


def test_a_certificate_at_another_noise_than_the_network_is_told_is_refused(tmp_path):
    mnist_like(tmp_path, "MNIST")
    options = ["data=mnist", f"data.root={tmp_path}"]
    small = ["model=vit_small", "preview.every=null", "loss=cross_entropy", "loss.noise_sigma=0.5", "trainer.steps=1"]
    train(tmp_path / "run", *options, *small, "trainer.batch_size=4", "trainer.precision=no")
    certify = job("certify", *options, f"checkpoint={tmp_path / 'run'}", "noise.sigma=0.25")
    with pytest.raises(UserError, match=r"noise: must be Gaussian with sigma=0.5, which this ViTClassifier"):
        certify.run(tmp_path / "out")
