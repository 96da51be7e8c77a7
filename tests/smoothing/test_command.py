r"""The command line: classifiers from files, a run, its continuation and a comparison."""

import copy
import sys

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from scoregen.commands.certify import _listed, run
from scoregen.config import build, conf_dir
from scoregen.errors import UserError
from scoregen.smoothing.classifiers import probe, read_classifier
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.results import fingerprint, load


def network():
    r"""Class = which of ten pixel groups is brightest."""
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(10).repeat(1, 7)[:, :64])
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval()


def number():
    return 3


def broken():
    return {}["weights"]


@pytest.fixture(scope="module")
def composed():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("certify", ["data=digits", "classifier=brightest:network", "n=300", "max_inputs=5"])
        noises = {
            name: compose("certify", [f"noise={name}"]).noise
            for name in ("gaussian", "uniform", "laplace", "log_normal", "gain", "gamma")
        }
    plain = OmegaConf.to_container(config, resolve=True)
    return plain, {name: OmegaConf.to_container(node) for name, node in noises.items()}


@pytest.fixture
def config(composed, monkeypatch):
    monkeypatch.setitem(sys.modules, "brightest", sys.modules[__name__])
    return copy.deepcopy(composed[0])


def test_every_noise_of_the_configuration_builds(composed):
    for name, node in composed[1].items():
        assert isinstance(build(node, where=name), AbstractNoise)


def test_a_run_leaves_certificates_table_curve_and_page_and_goes_on_where_it_stopped(config, tmp_path, capsys):
    run(config, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"certificates.jsonl", "table.md", "curve.png", "report.html"}
    first = (tmp_path / "certificates.jsonl").read_text()
    assert load(tmp_path).header["indices"] == [0, 36, 72, 108, 144]
    printed = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() in printed
    assert "s an input on 1 process(es)" in printed
    run(config, tmp_path)
    assert "s an input" not in capsys.readouterr().out  # nothing was left to do
    assert (tmp_path / "certificates.jsonl").read_text() == first
    with pytest.raises(UserError, match=r"another job .*alpha: 0.001 there, 0.01 asked"):
        run({**config, "alpha": 0.01}, tmp_path)


def test_runs_are_compared_in_one_table(config, tmp_path, capsys):
    for name, method in (("a", "ladder"), ("b", "fixed")):
        run({**config, "method": method, "out": str(tmp_path / name)}, tmp_path)
    capsys.readouterr()
    run({**config, "compare": [str(tmp_path / "a"), str(tmp_path / "b")]}, tmp_path / "both")
    assert capsys.readouterr().out.splitlines()[0] == "| radius (l2) | a | b |"
    assert (tmp_path / "both" / "curve.png").exists()
    with pytest.raises(UserError, match="holds certificates"):
        run({**config, "compare": [str(tmp_path / "b")], "out": str(tmp_path / "a")}, tmp_path)


def test_radii_of_two_distances_are_not_compared(composed, config, tmp_path):
    noises = {name: composed[1][name] for name in ("gain", "gamma")}
    noises |= {f"offset {c}": {**composed[1]["log_normal"], "offset": c} for c in (0.1, 10.0)}
    for name, noise in noises.items():
        run({**config, "noise": noise, "out": str(tmp_path / name)}, tmp_path)
    for pair in (("gain", "gamma"), ("offset 0.1", "offset 10.0")):
        with pytest.raises(UserError, match="must have one norm of the radii"):
            run({**config, "compare": [str(tmp_path / name) for name in pair]}, tmp_path / "both")


def test_compare_is_a_list_and_no_sweep():
    assert _listed("compare=a,runs/b=1") == "compare=['a','runs/b=1']"
    assert _listed("compare=[a,b]") == "compare=[a,b]"
    assert _listed("n=5") == "n=5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nn": 1}, "nn: not a key"),
        ({"classifier": None}, "give one of checkpoint=PATH"),
        ({"checkpoint": "a"}, "give one of checkpoint=PATH"),
        ({"precision": "int8"}, "precision: must be bf16 or fp16 or null"),
        ({"purify": None}, "purify: must be a mapping, got None"),
        ({"precision": ["bf16"]}, "precision: must be a text or null"),
        ({"purify": {"chekpoint": "a"}}, "purify.chekpoint: not a key .* Did you mean 'checkpoint'"),
        ({"purify": {"weights": "ema", "votes": "two", "seed": 0}}, "purify.votes: must be an integer, got 'two'"),
        ({"compare": ["a", "a"]}, "compare: must name different folders"),
        ({"step": 0.1, "method": "fixed"}, "method='fixed' has none"),
        ({"step": 1e-9}, "step must leave at most 1000 rungs"),
        ({"n": 5}, "n must be at least"),
        ({"method": "ladderr"}, "Did you mean 'ladder'"),
        ({"compare": ["nowhere"]}, "no certificates in"),
        ({"alpha": "abc"}, "alpha: must be a number, got 'abc'"),
        ({"n": None}, "n: must be an integer, got null"),
        ({"seed": 0.5}, "seed: must be an integer"),
        ({"strict": "no"}, "strict: must be true or false"),
        ({"max_radius": 3.5}, "no n is enough to certify radius 3.5: .* ask for a smaller radius"),
    ],
)
def test_mistakes_are_one_message(config, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        run({**config, **change}, tmp_path)


def test_classifiers_from_files_answer_as_the_module_does(tmp_path):
    module, x = network(), torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.warns(DeprecationWarning):
        torch.jit.script(module).save(tmp_path / "a.pt")
    for name in ("a.pt2", "a.pt"):
        read = read_classifier(str(tmp_path / name))
        torch.testing.assert_close(read(x), module(x))
        assert not any(part.training for part in read.modules())
        assert probe(read, x[0]) == 10


def test_unreadable_classifiers_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "brightest", sys.modules[__name__])
    (tmp_path / "a.pt").write_bytes(b"weights")
    for source, message in (
        (str(tmp_path / "b.pt2"), "does not exist"),
        (str(tmp_path / "a.pt"), "no torch.export .* file.*weights alone"),
        ("network", "neither a .pt2"),
        ("brightest:netwrk", "Did you mean 'network'"),
        ("brightest:number", "must return a classifier, got int"),
        ("no_such_module:f", "cannot import 'no_such_module'"),
        ("torchvision:resnet19", "Did you mean 'resnet1"),
        ("brightest:broken", r"brightest:broken\(\) failed \(KeyError: 'weights'\)"),
    ):
        with pytest.raises(UserError, match=message):
            read_classifier(source)


def test_what_is_no_classifier_of_any_batch_is_refused(tmp_path):
    with pytest.raises(UserError, match="must return logits"):
        probe(lambda x: x.sum(1), torch.ones(3))
    with pytest.raises(UserError, match=r"must return logits \(B, K\), got dict"):
        probe(lambda x: {"out": x}, torch.ones(3))
    for size in (1, 2, 5):
        torch.export.save(torch.export.export(network(), (torch.rand(size, 1, 8, 8),)), tmp_path / "a.pt2")
        with pytest.raises(UserError, match=r"at once .*needs a dynamic batch dimension"):
            probe(read_classifier(str(tmp_path / "a.pt2")), torch.rand(1, 8, 8))


def test_rows_are_the_rungs_that_were_asked_for(config, tmp_path, capsys):
    run({**config, "max_radius": 0.25, "step": 0.1}, tmp_path)
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| 0")]
    assert rows[:4] == ["0", "0.1", "0.2", "0.25"]


def test_an_unfinished_run_is_not_compared(config, tmp_path):
    run({**config, "out": str(tmp_path / "a")}, tmp_path)
    file = tmp_path / "a" / "certificates.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(UserError, match="has 2 of 5 certificates"):
        run({**config, "compare": [str(tmp_path / "a")]}, tmp_path / "both")


def few():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()


def coloured():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()


def exact():
    return network().double()


def test_classifiers_that_do_not_fit_the_data_stop_before_any_work(config, tmp_path):
    with pytest.raises(UserError, match="has 5 classes, digits has 10"):
        run({**config, "classifier": "brightest:few"}, tmp_path)
    with pytest.raises(UserError, match=r"cannot take inputs of shape \(1, 8, 8\)"):
        run({**config, "classifier": "brightest:coloured"}, tmp_path)
    assert not list(tmp_path.iterdir())
    run({**config, "classifier": "brightest:exact"}, tmp_path / "double")


def test_labels_are_part_of_the_job_and_none_is_negative(config, tmp_path):
    pictures, label = (np.arange(12 * 64) * 7 % 256).astype("uint8").reshape(12, 8, 8), torch.arange(12) % 10

    def certify(labels, out):
        np.savez(
            tmp_path / "a.npz", train_images=pictures, train_labels=labels, test_images=pictures, test_labels=labels
        )
        data = {"_target_": "scoregen.data.Npz", "path": str(tmp_path / "a.npz")}
        run({**config, "data": data, "out": str(tmp_path / out)}, tmp_path)

    certify(label.numpy(), "a")
    with pytest.raises(UserError, match=r"another job .description.labels_hash"):
        certify((label + 1).numpy() % 10, "a")
    with pytest.raises(UserError, match="labels must be >= 0, got -1"):
        certify((label - 1).numpy(), "b")


def test_files_that_differ_in_a_constant_differ(tmp_path):
    r"""Frozen TorchScript has its weights as constants, which are neither parameters nor buffers."""
    hashes = set()
    for scale in (1.0, 2.0):
        module = network()
        module[1].weight.data *= scale
        with pytest.warns(DeprecationWarning):
            torch.jit.freeze(torch.jit.script(module)).save(tmp_path / "a.pt")
        hashes.add(fingerprint(read_classifier(str(tmp_path / "a.pt"))))
    assert len(hashes) == 2
