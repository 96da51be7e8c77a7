r"""A network of the user's own, from a module outside the package: trained, sampled, measured, certified."""

import re
import shutil
import sys
import types

import pytest
import torch
import yaml
from tiny import command, job, numbers

import scoregen
from scoregen.checkpoint_files import write_state
from scoregen.errors import UserError
from scoregen.jobs.evaluate import extractor_for
from scoregen.targets import check_targets

MODULE = '''
import os
import random
from os import system

import torch
from torch import nn
from torch.nn import Linear

from scoregen.data.base import Source, split
from scoregen.losses import DenoisingScoreMatching
from scoregen.models import Classifier
from scoregen.sde import VP

class Net(nn.Module):
    """Convolutions that take any size: they are not told the shape."""

    def __init__(self, width=4, seed=20260101, norm="none"):
        super().__init__()
        self.width, self.seed, self.norm = width, seed, norm
        self.first, self.last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.time = nn.Linear(1, width)

    def forward(self, z, c_noise, label=None):
        return self.last(torch.tanh(self.first(z) + self.time(c_noise[:, None].to(z))[:, :, None, None]))


class Tied(Net):
    def __init__(self, width=4):
        super().__init__(width)
        self.again = self.first


class Drawn(Net):
    def __init__(self):
        super().__init__(random.randint(1, 10**4))


class Pair(Net):
    def forward(self, z, c_noise, label=None):
        return (super().forward(z, c_noise, label),)


class Short(Net):
    def forward(self, x, t):
        return x


class Slip(Net):
    def forward(self, z, c_noise, label=None):
        return self.middle(z)


class Empty:
    def __init__(self, width):
        self.width = width


class Flat(Net):
    def forward(self, z, c_noise, label=None):
        return super().forward(z, c_noise, label).mean(1)


class Grey(nn.Module):
    """A classifier."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes, self.layer = num_classes, nn.Linear(64, num_classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()
        float(torch.zeros(1))  # which no tensor without memory allows
        self.layer = nn.Linear(width, width)


class Features(Classifier):
    pass


class Squared(DenoisingScoreMatching):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, *arguments, **named):
        return self.factor * super().forward(*arguments, **named)


class Ramp(Source):
    name, range, num_classes = "ramp", (0.0, 1.0), 10

    def __init__(self, n=20, transpose=False):
        super().__init__()
        self.n, self.transpose = n, transpose

    def load(self, train):
        x = torch.linspace(0, 1, self.n * 64).view(self.n, 1, 8, 8)
        return split(x.mT if self.transpose else x, torch.arange(self.n) % 10, train)


class Path(VP):
    pass


def make():
    return Net()


def grey():
    return Grey(10).eval()
'''
SMALL = ["data=digits", "trainer.precision=no", "trainer.batch_size=8", "trainer.log_every=1", "preview.every=null"]
OWN = [*SMALL, "trainer.steps=1", "model.network._target_=mynet.Net", "model.network.width=3"]
TRUST = "trust=[mynet]"


@pytest.fixture
def here(tmp_path, monkeypatch):
    r"""A folder of the user's own, with two modules in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mynet", "mynetwork"):
        (tmp_path / f"{name}.py").write_text(MODULE)
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    return tmp_path


def ran(name: str, *argv: str) -> None:
    assert command(name, *argv) == 0


def refused(capsys, name: str, *argv: str) -> str:
    capsys.readouterr()
    assert command(name, *argv) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


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


MISTAKES = {
    "tuple": (
        ["model.network._target_=mynet.Pair", TRUST],
        r"Pair must return a tensor .*got tuple. Return the tensor",
    ),
    "arguments": (
        ["model.network._target_=mynet.Short", TRUST],
        r"3 positional arguments but 4 were given. A network is called as network\(z, c_noise, label\)\.",
    ),
    "line": (["model.network._target_=mynet.Slip", TRUST], r"no attribute 'middle' \(mynet.py, line \d+\)\."),
    "no-module": (
        ["model.network._target_=mynet.Empty", TRUST],
        "model: Empty has no parameters to train. A network is",
    ),
    "place": (["model={_target_: mynet.Net}", TRUST], r"A network of your own is model.network._target_=MODULE.CLASS;"),
    "name": (["model.network._target_=mynt.Net", "trust=[mynt]"], "cannot be found: .*. Did you mean 'mynet"),
    "relative": (
        ["model.network._target_=beside.Net", "trust=[beside]"],
        r"cannot import 'beside.Net' \(attempted relative .*Import your own files by their names: from mynet import",
    ),
    "import": (
        ["model.network._target_=needing.Net", "trust=[needing]"],
        "No module named 'nowhere', which it imports",
    ),
    "syntax": (
        ["model.network._target_=torn.Net", "trust=[torn]"],
        r"_target_: cannot import 'torn.Net' \(torn.py, line 2: .*never closed\)\.$",
    ),
    "code": (
        ["model.network._target_=odd.Net", "trust=[odd]"],
        r"_target_: cannot import 'odd.Net' \(odd.py, line 2: NameError: name 'nothing' is not defined\)\.$",
    ),
    "program": (
        ["model.network._target_=ending.Net", "trust=[ending]"],
        r"cannot import 'ending.Net' \(ending.py, line 2: SystemExit: 2\). It ends the program when it is imported",
    ),
    "no-trust": ([], r"train: model.network: 'mynet.Net' is not of this package. .* Give trust=\[mynet\]\."),
    "neighbour": (["trust=[mynetwork]"], "model.network: 'mynet.Net' is not of this package"),
    "python": (["trust=[os]"], "trust: 'os' is a module of Python itself"),
    "imported": (
        ["model.network={_target_: mynet.Linear, in_features: 1, out_features: 1}", TRUST],
        "is no class that",
    ),
    "function": (["model.network={_target_: mynet.make}", TRUST], "'mynet.make' is no class that"),
    "tied": (["model.network={_target_: mynet.Tied}", TRUST], "'network.first.weight' and '.*' share memory"),
    "drawn": (["model.network={_target_: mynet.Drawn}", TRUST], "a checkpoint of it could not be loaded: the weights"),
    "output": (
        ["model.network={_target_: mynet.Flat}", TRUST],
        r"return a tensor like z, \(2, 1, 8, 8\), got \(2, 8, 8",
    ),
    "process": (["sde={_target_: mynet.Path}"], r"sde: 'mynet.Path' is not of this package. .* Give trust=\[mynet\]"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_could_not_be_loaded_is_refused_before_any_work(here, capsys, case):
    argv, text = MISTAKES[case]
    (here / "beside.py").write_text("from .mynet import Net")
    (here / "needing.py").write_text("import nowhere")
    (here / "torn.py").write_text("import torch\nclass Net(\n")
    (here / "odd.py").write_text("import torch\nwidth = nothing + 1\n")
    (here / "ending.py").write_text("import sys\nsys.exit(2)\n")
    own = OWN if not any("={" in override for override in argv) else OWN[:-2]
    assert re.search(text, refused(capsys, "train", *own, *argv, "hydra.run.dir=run"))
    assert not (here / "run").exists()


def test_a_network_of_diffusers_is_given_by_its_kind(monkeypatch):
    module = types.ModuleType("diffusers")
    module.UNet2DModel = type("UNet2DModel", (torch.nn.Module,), {})
    monkeypatch.setitem(sys.modules, "diffusers", module)
    with pytest.raises(UserError, match=r"Give a node of scoregen\.models\.DiffusersNetwork with kind=UNet2DModel and"):
        check_targets({"_target_": "diffusers.UNet2DModel"}, "model.network", typed=True)


def test_an_output_of_diffusers_is_answered_with_the_class_that_unpacks_it():
    class Net(torch.nn.Module):
        def forward(self, z, c_noise, label=None):
            return types.SimpleNamespace(sample=z)

    denoiser = scoregen.models.Denoiser(Net(), scoregen.sde.EDM())
    with pytest.raises(
        ValueError, match=r"Return the tensor itself\. For a network of diffusers take .*DiffusersNetwork"
    ):
        denoiser(torch.zeros(2, 1, 4, 4), 1.0)


@pytest.fixture
def run(here):
    ran("train", *OWN, TRUST, "hydra.run.dir=run")
    return here / "run"


def crafted(run, folder, **network: object):
    r"""The checkpoint of a run with another network in its configuration, digests and all."""
    shutil.copytree(run / "checkpoints/step_00000001", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["network"] = network
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_state(folder, {"step": 1, "skipped": 0, "skipped_in_a_row": 0, "optimizer": {}})
    return folder


def test_a_checkpoint_does_not_say_what_is_trusted(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trust"] == ["mynet"]
    sys.modules.pop("mynet")
    for trust in ((), ("mynetwork",), ("./mynet",), ("ynet",)):
        with pytest.raises(UserError, match=r"'mynet.Net' is refused"):
            scoregen.load(run, trust=trust)
    assert "mynet" not in sys.modules  # it was not imported


@pytest.mark.parametrize("target", ["mynet.system", "mynet.os.system", "mynet.Linear", "mynet.make", "mynetwork.Net"])
def test_a_trusted_module_lends_its_own_classes_alone(run, tmp_path, monkeypatch, target):
    monkeypatch.setattr("os.system", lambda command: pytest.fail("os.system was called"))
    with pytest.raises(UserError, match=r"is refused|is no class that|cannot be found"):
        scoregen.load(crafted(run, tmp_path / "crafted", _target_=target, command="touch mark"), trust=["mynet"])


@pytest.mark.parametrize("node", [{"_target_": "mynet.Net"}, {"_target_": "mynet.Wide"}], ids=["net", "computes"])
def test_a_trusted_class_is_bounded_by_the_weights_too(run, tmp_path, node):
    with pytest.raises(UserError, match=r"larger model than its weights|do not fit the model"):
        scoregen.load(crafted(run, tmp_path / "crafted", **node, width=20_000), trust=["mynet"])


def test_trust_is_a_list(run):
    with pytest.raises(UserError, match=r"trust: must be a list of modules or places, got 'mynet'"):
        scoregen.load(run, trust="mynet")


def test_a_network_of_the_script_itself_is_trusted_by_name(here, monkeypatch):
    import mynet

    monkeypatch.setattr(sys.modules["__main__"], "Net", mynet.Net, raising=False)
    monkeypatch.setattr(mynet.Net, "__module__", "__main__")
    model = {
        "_target_": "scoregen.models.Denoiser",
        "network": {"_target_": "__main__.Net", "width": 2},
    }
    made = scoregen.Train(
        data=scoregen.data.Digits(),
        model=model,
        trust=["__main__"],
        preview=None,
        trainer={"_target_": "scoregen.training.Trainer", "steps": 1, "batch_size": 4, "precision": "no"},
    )
    out = made.run(here / "run")
    assert torch.equal(*(scoregen.load(out, trust=["__main__"]).network.first.bias for _ in range(2)))
