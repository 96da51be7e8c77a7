r"""A network of the user's own: what is refused before any work, and how far a module is trusted."""

import re
import shutil
import sys
import types

import pytest
import torch
import yaml
from own_network import OWN, TRUST, ran, refused, with_modules

import scoregen
from scoregen.checkpoint_files import write_state
from scoregen.errors import UserError
from scoregen.targets import check_targets


@pytest.fixture
def here(here, monkeypatch):
    r"""A folder of the user's own, with two modules in it."""
    return with_modules(here, monkeypatch)


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
