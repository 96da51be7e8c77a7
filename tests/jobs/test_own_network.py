r"""A network of the user's own, from a module outside the package: trained, sampled, measured, certified."""

import pytest
import yaml
from own_network import OWN, SMALL, TRUST, ran, refused, with_modules
from tiny import job, numbers

import scoregen
from scoregen.errors import UserError
from scoregen.jobs.evaluate import extractor_for


@pytest.fixture
def here(here, monkeypatch):
    r"""A folder of the user's own, with two modules in it."""
    return with_modules(here, monkeypatch)


JOBS = {
    "sample": ["n=3", "format=npz"],
    "interpolate": ["between=[0,1]", "frames=2", "dry_run=true"],
    "evaluate": ["data=digits", "n=4", "features=pixels", "cache=null"],
    "sweep": ["data=digits", "n=4", "features=pixels", "cache=null", "samplers=[ddim]", "calls=[1]", "dry_run=true"],
    "smoothness": ["data=digits", "pairs=2", "points=3", "inversion=0", "dry_run=true"],
    "certify": ["classifier=mynet:grey", "data=digits", "noise.sigma=0.1", "n=20", "n0=5", "max_inputs=2"],
}


def test_it_goes_through_every_job(here, capsys):
    ran("train", *OWN, TRUST, "hydra.run.dir=run")
    for name, argv in JOBS.items():
        place = "purify.checkpoint=run" if name == "certify" else "checkpoint=run"
        text = refused(capsys, name, place, *argv, f"out={name}")
        assert "'mynet.Net' is refused" in text and "give trust=[mynet]" in text
        ran(name, place, *argv, f"out={name}", TRUST)
    assert scoregen.load("run", trust=["mynet"]).network.width == 3


def test_it_starts_from_another_run_and_goes_on(here):
    ran("train", *OWN, TRUST, "hydra.run.dir=a")
    ran("train", *OWN, TRUST, "init=a", "hydra.run.dir=b")
    more = ["init=a", "trainer.steps=2", "trainer.resume=auto", "hydra.run.dir=b"]
    ran("train", *(text for text in OWN if text != "trainer.steps=1"), TRUST, *more)
    assert [line["step"] for line in numbers(here / "b")] == [1, 2]


def test_a_classifier_of_ones_own_is_certified(here):
    model = ["model._target_=mynet.Grey", "loss=cross_entropy", "loss.noise_sigma=0.1", "trainer.steps=1"]
    ran("train", *SMALL, *model, TRUST, "hydra.run.dir=run")
    argv = ["checkpoint=run", "data=digits", "n=20", "n0=5", "method=fixed", "max_inputs=2", "out=out"]
    ran("certify", *argv, TRUST)


def test_its_keys_replace_those_of_the_default(here):
    r"""Also where the default has keys of the same name, and in whatever order they are given."""
    argv = ["model=unet_tiny", "model.network.norm=null", *OWN]
    ran("train", *argv, TRUST, "hydra.run.dir=run")
    network = yaml.safe_load((here / "run/config.yaml").read_text())["model"]["network"]
    assert network == {"_target_": "mynet.Net", "norm": None, "width": 3}


def test_a_loss_a_sampler_and_data_of_ones_own_need_no_trust(here):
    r"""They are typed, never named by a checkpoint; what stood in their place leaves nothing behind."""
    loss = ["loss._target_=mynet.Squared", "loss.factor=0.5"]
    data = ["data._target_=mynet.Ramp", "data.transpose=true"]
    small = ["model.network.channels=[4]", "model.network.attention=[]", "trainer.steps=1", *SMALL[1:]]
    ran("train", *small, *data, *loss, "hydra.run.dir=run")
    config = yaml.safe_load((here / "run/config.yaml").read_text())
    assert config["loss"] == {"_target_": "mynet.Squared", "factor": 0.5}
    assert config["data"]["transpose"] is True and "path" not in config["data"]
    scoregen.load("run")


def test_features_of_a_classifier_of_ones_own_are_trusted_by_the_job(here):
    model = ["model._target_=mynet.Features", "model.channels=[4]", "model.blocks=[1]", "loss=cross_entropy"]
    ran("train", *SMALL, *model, "trainer.steps=1", TRUST, "hydra.run.dir=run")
    given = ["checkpoint=a", "data=digits", "features=classifier", "features.checkpoint=run"]
    assert extractor_for(job("evaluate", *given, TRUST)).name == "digits"
    with pytest.raises(UserError, match=r"'mynet.Features' is refused"):
        extractor_for(job("evaluate", *given))


def test_a_sweep_runs_each_of_its_values(here):
    argv = [*OWN[:-1], "model.network.width=2,3", "model.network.seed=5,6", TRUST, "hydra.sweep.dir=sweep"]
    ran("train", "--multirun", *argv)
    found = [yaml.safe_load((here / f"sweep/{k}/config.yaml").read_text())["model"]["network"] for k in range(4)]
    assert [(node["width"], node["seed"]) for node in found] == [(2, 5), (2, 6), (3, 5), (3, 6)]
