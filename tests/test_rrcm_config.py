r"""The stages of rRCM as experiments: what each learns, at which sigma, and where it starts."""

import pytest
import yaml
from tiny import compose, mnist_like, train

from scoregen.config import build, conf_dir
from scoregen.errors import UserError

DATA = ("mnist", "fashion_mnist", "cifar10")


@pytest.mark.parametrize("name", DATA)
def test_each_stage_starts_from_the_last_and_selects_on_training_images(name):
    stages = {s: compose(f"+experiment=rrcm_{name}_{s}", "data.root=x") for s in ("pretrain", "probe", "finetune")}
    assert [c["model"]["trainable"] for c in stages.values()] == [
        ["encoder", "projector"],
        ["head"],
        ["encoder", "head"],
    ]
    files = [conf_dir() / "experiment" / f"rrcm_{name}_{stage}.yaml" for stage in stages]
    before = [yaml.safe_load(file.read_text())["hydra"]["run"]["dir"] for file in files]
    assert stages["probe"]["init"] == before[0]
    assert stages["finetune"]["init"] == f"{before[1]}/checkpoints/best"
    for config in stages.values():
        assert config["data"]["validation"] > 0
        build(config["data"])
        build(config["loss"])
    assert all(stages[s]["accuracy"]["keep_best"] for s in ("probe", "finetune"))


@pytest.mark.parametrize("experiment", ["rrcm_mnist_probe", "rrcm_mnist_finetune", "vit_mnist", "vit_fashion_mnist"])
def test_the_time_condition_follows_the_noise_of_the_loss(experiment):
    config = compose(f"+experiment={experiment}", "loss.noise_sigma=0.25", "data.root=x")
    assert config["model"]["noise_sigma"] == 0.25


@pytest.mark.parametrize("data", DATA)
def test_the_stages_of_one_data_set_build_the_same_network(data):
    keys = ("patch_size", "width", "depth", "heads", "hidden", "projection")
    shapes = [
        tuple(compose(f"+experiment={name}", "data.root=x")["model"][key] for key in keys)
        for name in (*(f"rrcm_{data}_{stage}" for stage in ("pretrain", "probe", "finetune")), f"vit_{data}")
    ]
    assert len(set(shapes)) == 1


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["loss=representation"], r"loss: .*needs model.trainable=\[encoder,projector\], got \[encoder,head\]"),
        (["loss=cross_entropy"], "loss.noise_sigma: must be model.noise_sigma=0.5, .* got 0; set both"),
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
    from scoregen.commands.certify import run

    mnist_like(tmp_path, "MNIST")
    options = ["data=mnist", f"data.root={tmp_path}"]
    small = ["model=vit_small", "preview.every=null", "loss=cross_entropy", "loss.noise_sigma=0.5", "trainer.steps=1"]
    train(tmp_path / "run", *options, *small, "trainer.batch_size=4", "trainer.precision=no")
    config = compose(*options, f"checkpoint={tmp_path / 'run'}", "noise.sigma=0.25", name="certify")
    with pytest.raises(UserError, match=r"noise: must be Gaussian with sigma=0.5, which this ViTClassifier"):
        run(config, tmp_path / "out")
