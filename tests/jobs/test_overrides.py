r"""Overrides: whole nodes, flags, quotes, sweeps, and the commands beside `scoregen JOB`."""

import re
import runpy
import sys

import pytest
import yaml
from tiny import DIGITS, TOY, command, numbers, train

import scoregen
from scoregen.command_line import main
from scoregen.help import JOBS

DRY = ["trainer.steps=1", "preview.every=null", "dry_run=true"]


def resolved(here, *argv: str) -> dict:
    r"""The configuration that a training of one step keeps."""
    assert command("train", *TOY, "trainer.steps=1", "hydra.run.dir=run", *argv) == 0
    return yaml.safe_load((here / "run" / "config.yaml").read_text())


def test_a_whole_node_replaces_the_one_that_stands_there(here):
    network = "model.network={_target_: scoregen.models.FlatMLP, width: 6}"
    argv = ["data=digits", *TOY[4:], "trainer.steps=1", network, "hydra.run.dir=run"]
    assert command("train", *argv) == 0
    config = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert config["model"]["network"] == {
        "_target_": "scoregen.models.FlatMLP",
        "width": 6,
        "shape": [1, 8, 8],
        "num_classes": 10,
    }
    scoregen.load(here / "run")


def test_keys_below_a_whole_node_go_into_it(here):
    config = resolved(
        here, "sampler={_target_: scoregen.samplers.Heun}", "sampler.steps=3", "preview.every=1", "preview.n=2"
    )
    assert config["sampler"] == {"_target_": "scoregen.samplers.Heun", "steps": 3}


def test_an_option_replaces_the_node_whole(here):
    config = resolved(here, "trainer.schedule={_target_: scoregen.training.Constant}", "sampler=adaptive_flow")
    assert config["trainer"]["schedule"] == {"_target_": "scoregen.training.Constant"}
    assert "steps" not in config["sampler"]


MISTAKES = {
    "other-target": (
        ["sampler._target_=scoregen.samplers.DDIM", "preview.every=1"],
        r"sampler.order: 'order' is not an argument of scoregen.samplers.DDIM. Write the node whole, with what it "
        r"takes: 'sampler=\{_target_: scoregen.samplers.DDIM, steps: 18, eta: ...\}'",
    ),
    "other-process": (
        ["sde._target_=scoregen.sde.VP"],
        r"sde.sigma_min: 'sigma_min' is not an argument of scoregen.sde.VP. Write the node whole, .*'sde=\{_target_: "
        r"scoregen.sde.VP, .*beta_min: ..., beta_max: ...\}'",
    ),
    "place": (["modell.network={_target_: a.B}"], r"modell.network: there is no key 'modell'. Did you mean 'model'\?"),
    "top": (["smapler={_target_: a.B}"], r"smapler: .*Did you mean 'sampler'\?"),
    "unknown-network-key": (
        ["data=digits", "model.network.width=4"],
        "model.network.width: the data picked model=unet_tiny, a UNet, which has no width. Choose another model=...",
    ),
    "shape": (
        ["data=digits", "model.network.shape=[1,9,9]"],
        r"model.network.shape: must be that of the data, \[1, 8, 8\] of digits, got \[1, 9, 9\]. Leave it out",
    ),
    "chart": (["sde=gbm", "chart=identity"], "chart: .*GeometricBrownianMotion has its own chart"),
    "chart-key": (["+chart.scale=3"], "chart.scale: chart=auto is picked by the data. Choose chart=unit_range"),
    "no-process": (
        ["data=digits", "model=classifier", "loss=cross_entropy", "sde=vp"],
        "sde: Classifier has no process, so it would have no effect. Leave sde=... out.",
    ),
    "no-chart": (
        ["data=digits", "model=classifier", "loss=cross_entropy", "chart=unit_range"],
        "chart: Classifier has no process, so it would have no effect. Leave chart=... out.",
    ),
    "flag": (["--foo"], "--foo: there is no such flag"),
    "short-flag": (["-x"], "-x: there is no such flag"),
    "equals": (
        ["init=runs/lr=1e-3"],
        """init: the value runs/lr=1e-3 holds .*Quote it twice: 'init="runs/lr=1e-3"'.""",
    ),
    "parenthesis": (["init=runs/photos (1)"], """Quote it twice: 'init="runs/photos \\(1\\)"'."""),
    "apostrophe": (["init=runs/it's"], """Quote it twice: 'init="runs/it'\\\\''s"'."""),
    "brackets": (["init=runs/a[1]"], """Quote it twice: 'init="runs/a\\[1\\]"'."""),
    "hash": (["init=runs/a#1"], """Quote it twice: 'init="runs/a#1"'."""),
    "umlaut": (["init=Bücher/run"], """Quote it twice: 'init="Bücher/run"'."""),
    "captions": (
        ["data=captions", "data.path=photos"],
        "model: .* Choose model=latent_diffusion model.pipeline=PATH loss=latent",
    ),
    "key-elsewhere": (["batch_size=4"], "batch_size: there is no key .* Did you mean 'trainer.batch_size'\\?"),
    "key-below": (["trainer.lr=1"], "trainer.lr: there is no key 'lr'. Did you mean 'trainer.optimizer.lr'\\?"),
    "key-of-option": (
        ["data.path=x"],
        "data.path: there is no key 'path'. Options that have it: captions, folder, .*table. Choose one by data=",
    ),
    "folder-as-option": (["data=photos/cats"], "Give the place as data.path: data=folder data.path=photos/cats. Choi"),
    "class-as-option": (["model=mynet.Net"], "A class of your own is model.network._target_=mynet.Net. Choices"),
    "dashes": (["--data", "folder"], "--data: there is no such flag. Keys have no dashes: data=VALUE."),
    "near-flag": (["--hepl"], "--hepl: there is no such flag. Did you mean '--help'\\?"),
    "text-for-a-list": (["data=digits", "trust=mynet"], "must be a list of texts.* Did you mean trust=\\[mynet\\]\\?"),
    "class-for-a-node": (
        ["data=digits", "model.network=mynet.Net"],
        "model.network: must be a mapping .* Give model.network._target_=MODULE.CLASS.",
    ),
    "sde-number": (["sde=3"], "sde: must be an option of conf/sde, got 3. Choices: cosine, edm"),
    "model-null": (["model=null"], "model: must be an option of conf/model, got null. Choices: auto"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message(case, here, capsys):
    argv, text = MISTAKES[case]
    if case == "captions":
        (here / "photos").mkdir()
        from PIL import Image

        for k in range(3):
            Image.new("RGB", (8, 8), (90 * k, 0, 90)).save(here / "photos" / f"{k}.png")
            (here / "photos" / f"{k}.txt").write_text(f"number {k}")
        argv = [*argv, "data.size=8"]
    keys = {argument.split("=")[0] for argument in argv}
    before = sorted(here.iterdir())
    assert command("train", *[a for a in DRY if a.split("=")[0] not in keys], *argv) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err, err
    assert re.search(text, err), err
    assert sorted(here.iterdir()) == before


NAMES = ["lr=1e-3", "photos (1)", "it's", "a[1]", "a#1", "Bücher", "a~b^c", r"a\b(1)", 'a"b', r"a\"(b)", "a(b)\\"]


@pytest.mark.parametrize("name", NAMES)
def test_the_quotes_that_a_message_shows_work(name, here, capsys):
    import shlex

    (here / name).mkdir()
    argument = f"checkpoint={name}"
    assert command("sample", argument) == 1
    err = capsys.readouterr().err
    if "Quote it twice" in err:
        argument = shlex.split(err.split("Quote it twice: ")[1].rstrip(".\n"))[0]
        assert command("sample", argument) == 1
        err = capsys.readouterr().err
    assert f"checkpoint: '{name}' is not a checkpoint of scoregen" in err


def test_where_verify_is_looked_for_its_command_is_named(here, capsys):
    assert command("certify", "verify=outputs/a") == 1
    with pytest.raises(SystemExit):
        main(["verify", "outputs/a"])
    assert capsys.readouterr().err.count("python -m scoregen.smoothing verify=FOLDER.\n") == 2


def test_a_job_returns_its_number_to_a_sweeper(here, monkeypatch):
    r"""Hydra hands a sweeper what each job returns."""
    from hydra._internal.core_plugins import basic_launcher

    found, job = [], basic_launcher.run_job

    def remembered(*arguments, **named):
        done = job(*arguments, **named)
        found.append((done.overrides, done.return_value))
        return done

    monkeypatch.setattr(basic_launcher, "run_job", remembered)
    sweep = ["--multirun", *TOY, "trainer.steps=3", "hydra.sweep.dir=sweep", "trainer.optimizer.lr=1e-4,1e-1"]
    assert command("train", *sweep) == 0
    assert len(found) == 2 and len({value for _, value in found}) == 2
    for k, (overrides, value) in enumerate(found):
        assert value == numbers(here / "sweep" / str(k))[-1]["loss"]
        assert (here / "sweep" / str(k) / ".hydra" / "overrides.yaml").is_file()
        assert f"trainer.optimizer.lr={['0.0001', '0.1'][k]}" in overrides


@pytest.mark.parametrize("objective", ["loss", "quality"])
def test_the_objective_is_the_last_loss_or_the_best_quality(objective, tmp_path):
    from tiny import job

    quality = ["quality.every=1", "quality.n=20", f"objective={objective}", "sampler.steps=1"]
    made = job("train", *TOY, "trainer.steps=3", *quality)
    lines = numbers(made.run(tmp_path))
    expected = [line["FD-pixels"] for line in lines if "FD-pixels" in line]
    assert made.result(tmp_path) == (
        min(expected) if objective == "quality" else lines[-1].get("loss", lines[-2].get("loss"))
    )


def test_the_objective_may_be_the_best_accuracy(tmp_path):
    from tiny import job

    small = ["data=digits", "model=classifier", "model.channels=[4]", "model.blocks=[1]", "loss=cross_entropy"]
    made = job("train", *small, *DIGITS[3:], "trainer.steps=3", "accuracy.every=1", "objective=accuracy",
               "data.validation=0.1")  # fmt: skip
    lines = numbers(made.run(tmp_path))
    assert made.result(tmp_path) == max(line["accuracy"] for line in lines if "accuracy" in line)


def test_without_a_job_the_jobs_are_listed(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(JOBS)
    with pytest.raises(SystemExit, match="1"):
        main(["smaple"])
    assert capsys.readouterr().err == "scoregen: there is no job 'smaple'. Did you mean 'sample'?\n"


@pytest.mark.parametrize(
    ("module", "argv", "job"),
    [
        ("scoregen", ["certify", "nn=1"], "certify"),
        ("scoregen.smoothing", ["nn=1"], "certify"),
        ("scoregen.smoothing", ["compare=a,b", "nn=1"], "compare"),
        ("scoregen.metrics", ["nn=1"], "evaluate"),
        ("scoregen.metrics", ["sweep=[heun]", "nn=1"], "sweep"),
        ("scoregen.metrics", ["smoothness", "nn=1"], "smoothness"),
    ],
)
def test_modules_run_their_jobs(module, argv, job, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["python", *argv])
    monkeypatch.delitem(sys.modules, f"{module}.__main__", raising=False)
    with pytest.raises(SystemExit, match="1"):
        runpy.run_module(module, run_name="__main__")
    assert capsys.readouterr().err.startswith(f"{job}: nn: there is no key 'nn'")


def test_a_comparison_by_the_module_has_its_runs_as_a_list(here, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["python", "compare=a,b"])
    monkeypatch.delitem(sys.modules, "scoregen.smoothing.__main__", raising=False)
    with pytest.raises(SystemExit, match="1"):
        runpy.run_module("scoregen.smoothing", run_name="__main__")
    assert "no certificates in a" in capsys.readouterr().err


@pytest.mark.parametrize("data, model", [("digits", "unet_tiny"), ("toy2d", "mlp"), ("wine", "mlp")])
def test_the_network_is_picked_by_the_shape_and_said(data, model, here, capsys):
    assert command("train", f"data={data}", *DRY) == 0
    assert f"model: {model}, picked by the shape" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("digits", "chart: y = 2 x - 1, picked by the range (0.0, 1.0) of the data"),
        ("wine", "chart: y = 1 x - 1, picked by the range (0.0, inf) of the data"),
        ("toy2d", "chart: y = 1 x, picked by the range None of the data"),
    ],
)
def test_the_chart_is_picked_by_the_range_and_said(data, line, here, capsys):
    assert command("train", f"data={data}", *DRY) == 0
    assert line in capsys.readouterr().out.splitlines()
    assert command("train", f"data={data}", "chart=identity", *DRY) == 0
    assert "picked by the range" not in capsys.readouterr().out


def test_an_interrupted_job_ends_with_its_status(here, capsys, monkeypatch):
    from scoregen.errors import Interrupted
    from scoregen.jobs import Sample

    def stopped(self, out, started=None):
        raise Interrupted(143, "stopped by SIGTERM after step 7. Go on with trainer.resume=auto.")

    monkeypatch.setattr(Sample, "run", stopped)
    assert command("sample", "checkpoint=x") == 143
    assert capsys.readouterr().err == "sample: stopped by SIGTERM after step 7. Go on with trainer.resume=auto.\n"


def test_a_run_that_was_trained_is_found_by_all_jobs(tmp_path):
    train(tmp_path / "run", *DIGITS, "trainer.steps=1")
    assert scoregen.Sample(checkpoint=str(tmp_path / "run"), n=1, dry_run=True).run(tmp_path / "out")
    assert not (tmp_path / "out").exists()
