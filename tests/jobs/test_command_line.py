r"""The commands as a user meets them: quick to answer, one message a mistake, the same images however they are made."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import DIGITS, TOY, command, image_folder, numbers, refused, weights

ROOT = Path(__file__).parents[2]
QUICK = ["trainer.steps=1", "preview.every=null", "dry_run=true", "model.network.channels=[4]"]


MISTAKES = {
    "augmentation": (
        ["+data.augmentation={_target_: scoregen.data.Chain, steps: [3]}"],
        "data.augmentation: Chain of digits fails: 'int' object is not callable",
    ),
    "classes": (["data=digits", "model.network.num_classes=9"], "model: num_classes must be at least 10, .*got 9"),
    "network": (
        ["model.network=null", "model._target_=scoregen.models.Denoiser"],
        "model.network: must be a mapping with a _target_, got None",
    ),
    "key": (["trainer.stepss=1"], r"train: trainer.stepss: there is no key 'stepss'. Did you mean 'steps'\?"),
    "key+": (
        ["+trainer.stepss=1"],
        r"trainer.stepss: 'stepss' is not an argument of .*Trainer. Did you mean 'steps'\?",
    ),
    "key++": (
        ["++trainner.steps=1"],
        r"trainner: .* is not an argument of scoregen.jobs.Train. Did you mean 'trainer'\?",
    ),
    "top-key": (["sed=1"], r"sed: there is no key 'sed'. Did you mean 'seed'\?"),
    "top-key+": (["+sedd=1"], r"sedd: .*Did you mean 'seed'\?"),
    "nested-key": (["trainer.optimizer.lrr=1"], r"trainer.optimizer.lrr: there is no key 'lrr'. Did you mean 'lr'\?"),
    "nested-key+": (
        ["+trainer.optimizer.lrr=1"],
        r"trainer.optimizer.lrr: 'lrr' is not an arg.*AdamW. Did you mean 'lr'",
    ),
    "key-of-unused": (["+quality.featuress=1"], r"quality.featuress: .* Did you mean 'features'\?"),
    "key-of-sampler": (["+sampler.stepss=1"], r"sampler.stepss: .*VelocityABM. Did you mean 'steps'\?"),
    "group": (["dta=mnist"], r"dta: there is no key 'dta'. Did you mean 'data'\?"),
    "option": (["sde=edmm"], r"sde: there is no option 'edmm'. Did you mean 'edm'\? Choices: .*edm.*"),
    "option+": (["+experiment=dmo"], r"experiment: there is no option 'dmo'. Did you mean 'demo'\? Choices: .*demo"),
    "no-option": (["sampler=null"], "sampler: must be an option of conf/sampler, got null"),
    "no-options": (["sampler=[null]"], r"sampler: must be an option of conf/sampler, got \[None\]"),
    "options-of-numbers": (["data=[1,2]"], r"data: must be an option of conf/data, got \[1, 2\]"),
    "shape-of-a-number": (
        ["model.network.shape=1"],
        r"model.network.shape: must be that of the data, .*, got 1. Leave",
    ),
    "syntax": (["trainer.steps"], "trainer.steps: an override has the form key=value"),
    "delete-part": (["~sde"], "~sde: a key of the job cannot be removed. Give it another value"),
    "delete": (["~trainer.foo"], "Could not delete from config. 'trainer.foo' does not exist"),
    "interpolation": (["seed=${sede}"], "Interpolation key 'sede' not found"),
    "type-text": (["trainer.steps=many"], r"trainer.steps: must be an integer, got 'many' \(a text\)"),
    "type-float": (["trainer.steps=1.5"], r"trainer.steps: must be an integer, got 1.5 \(a number\)"),
    "type-empty": (["trainer.steps="], r"trainer.steps: must be an integer, got ''"),
    "type-null": (["trainer.batch_size=null"], "trainer.batch_size: must be an integer, got null"),
    "type-list": (["model.network.channels=[a]"], r"model.network.channels\[0\]: must be an integer, got 'a'"),
    "type-no-list": (["model.network.channels=8"], "model.network.channels: must be a list of integers, got 8"),
    "type-seed": (["seed=one"], "seed: must be an integer, got 'one'"),
    "type-flag": (["conditional=maybe"], "conditional: must be true or false, got 'maybe'"),
    "type-node": (["sde.chart=5"], "sde.chart: must be Chart or null, got 5"),
    "type-group": (["loss=5"], "loss: must be an option of conf/loss, got 5"),
    "range-steps": (["trainer.steps=0"], "trainer: steps must be >= 1, got steps=0"),
    "range-batch": (
        ["trainer.accumulate=3"],
        "trainer: batch_size must be divisible by accumulate .*128, accumulate=3",
    ),
    "range-sigma": (
        ["sde.sigma_min=100"],
        "sde: sigma_min must satisfy 0 < sigma_min < sigma_max < inf, got sigma_min=100.0",
    ),
    "range-lr": (
        ["trainer.optimizer.lr=-1"],
        "trainer.optimizer: a value is out of range .*: Invalid learning rate: -1.0",
    ),
    "range-lr-infinite": (["trainer.optimizer.lr=inf"], "trainer.optimizer.lr: must be a finite number, got inf"),
    "range-lr-text": (["trainer.optimizer.lr=abc"], "trainer.optimizer: a value is out of range or of another type"),
    "range-lr-node": (["trainer.optimizer=5"], "trainer: optimizer must make an optimizer .* got optimizer=5"),
    "no-target": (
        ["model=unet_tiny", "~model.network._target_"],
        "model.network._target_: must be the dotted name of a class, got None",
    ),
    "target-without-signature": (
        ["model._target_=builtins.dict"],
        "model: 'builtins.dict' is not of this package. .* Choose another class",
    ),
    "target-is-module": (["sde._target_=scoregen.sde"], "sde._target_: 'scoregen.sde' is not a class or function"),
    "lora-without-rank": (
        ["lora.targets=[conv1]"],
        "lora.targets: needs lora.rank, which is null, got .* Give lora.rank=8",
    ),
    "range-accuracy": (
        ["+accuracy.batch_size=0", "accuracy.every=1", "model=classifier", "loss=cross_entropy"],
        "accuracy: batch_size must be >= 1, got batch_size=0",
    ),
    "range-ema": (["trainer.ema_halflife=-1"], "trainer: ema_halflife must be >= 0, got ema_halflife=-1"),
    "range-dropout": (["model.network.dropout=2"], r"model.network: dropout must lie in \[0, 1\), got dropout=2"),
    "range-label-dropout": (["loss.label_dropout=2"], r"loss: label_dropout must lie in \[0, 1\], got label_dropout=2"),
    "range-every": (["preview.every=0"], "preview: every must be >= 1, got every=0"),
    "choice": (
        ["model.prediction=epss"],
        r"model: prediction must be edm, x0, eps, v, flow or consistency, got prediction='epss'. Did you mean 'eps'\?",
    ),
    "choice-precision": (
        ["trainer.precision=b16"],
        "trainer: precision must be auto, bf16, fp16 or no, got precision='b16'",
    ),
    "choice-moments": (
        ["data_moments=pixels"],
        r"data_moments: must be scalar, pixel or null, .*Did you mean 'pixel'\?",
    ),
    "required": (["data=folder"], r"data.path: a value is required; give data.path=..."),
    "missing-file": (["data=npz", "data.path=x.npz"], "data.path: 'x.npz' does not exist"),
    "missing-data": (["data=mnist", "data.root=x", "data.download=false"], "data.root: mnist is not under 'x'"),
    "missing-resume": (["trainer.resume=x"], "trainer.resume: 'x' does not exist"),
    "missing-init": (["init=x"], "init: 'x' does not exist"),
    "no-folder": (["hydra.run.dir=/dev/null/x"], "'/dev/null/x': a part of the path is no folder"),
    "model-of-vectors": (
        ["data=toy2d", "model=unet_tiny"],
        r"shape must be that of one image, \(C, H, W\) .*got \(2,\). Use an MLP",
    ),
    "loss-of-classifiers": (
        ["model=unet_tiny", "loss=cross_entropy"],
        "loss: CrossEntropy of Denoiser on digits cannot be",
    ),
    "chart-of-data": (["sde=gbm", "sde.offset=0"], r"sde: data_range must .*offset=0.0. Use a larger offset"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_and_nothing_is_written(case, here, capsys):
    argv, text = MISTAKES[case]
    needs_model = case.startswith(("model", "loss-", "chart", "missing-i", "missing-r", "range-lr", "choice-m"))
    small = [a for a in QUICK if "channels" not in a] + (
        [QUICK[3]] if needs_model and case != "model-of-vectors" else []
    )
    keys = {a.split("=")[0] for a in argv}
    assert re.search(text, refused("train", capsys, *[a for a in small if a.split("=")[0] not in keys], *argv))


def test_images_of_mixed_channels_are_refused_by_name(here, capsys):
    image_folder(here / "images", modes=("L", "RGB", "L"))
    text = refused("train", capsys, "data=folder", "data.path=images")
    assert re.search(
        "data.path: pictures must have the same channels, but .*0.png' has 1, .*1.png' 3. Give data.channels=3", text
    )


def test_a_read_only_disk_is_one_message(here, capsys, monkeypatch):
    def refused(path, *args, **options):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    (here / "out").mkdir()
    monkeypatch.setattr("scoregen.lock._open", refused)
    monkeypatch.setattr(Path, "rmdir", refused)
    assert command("train", *TOY, "hydra.run.dir=out") == 1
    assert capsys.readouterr().err.splitlines() == [f"train: '{here / 'out/.lock'}': the file system is read-only."]


def test_the_traceback_is_there_for_those_who_ask(here, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="steps must be >= 1"):
        command("train", "trainer.steps=0")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_a_folder_that_holds_another_run_is_left_alone(digits, here, capsys):
    before = {path: path.read_bytes() for path in digits.rglob("*") if path.is_file()}
    text = refused("train", capsys, *DIGITS, f"hydra.run.dir={digits}")
    assert "holds another run. Give trainer.resume=auto" in text
    changed = [*DIGITS, "trainer.steps=2", "trainer.optimizer.lr=0.5", f"hydra.run.dir={digits}", "trainer.resume=auto"]
    assert "trainer.optimizer.lr: the run in" in refused("train", capsys, *changed)
    assert {path: path.read_bytes() for path in digits.rglob("*") if path.is_file()} == before


def test_a_run_by_the_command_line_holds_what_is_promised(here, capsys):
    overrides = [*TOY[:4], *TOY[4:-1], "preview.n=4", "sampler.steps=2", "hydra.run.dir=run", "trainer.steps=2"]
    assert command("train", *overrides) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"done: {here}/run/report.html"
    names = {path.name for path in (here / "run").iterdir()}
    pictures = {"samples", "samples.png", "real.png", "loss.png"}
    assert names == {".hydra", "config.yaml", "data.json.gz", "metrics.jsonl", "checkpoints", "report.html", *pictures}
    assert set(numbers(here / "run")[0]) == {"step", "loss", "grad_norm", "lr", "skipped", "images"}
    report = (here / "run" / "report.html").read_text()
    assert "data:image/png;base64," in report and "http" not in report.replace("http-equiv", "")


def test_a_dry_run_writes_nothing(here, capsys):
    assert command("train", *TOY, "dry_run=true") == 0
    assert list(here.iterdir()) == []
    assert "data: toy2d" in capsys.readouterr().out


def test_multirun_runs_every_job_and_reports_those_that_fail(here, capsys):
    sweep = [*TOY, "trainer.steps=1", "hydra.sweep.dir=sweep"]
    assert command("train", "--multirun", *sweep, "seed=1,2", "trainer.precision=no,bf16") == 0
    assert sorted(p.name for p in (here / "sweep").iterdir() if p.is_dir()) == ["0", "1", "2", "3"]
    first, other = (weights(here / "sweep" / k)["network.first.weight"] for k in "01")
    assert not torch.equal(first, other)
    capsys.readouterr()
    assert command("train", "--multirun", *sweep, "hydra.sweep.dir=again", "sde.sigma_min=1,100") == 1
    assert capsys.readouterr().err.count("sigma_min must satisfy") == 1
    assert (here / "again" / "0" / "config.yaml").exists()


def test_multirun_inside_torchrun_is_refused(here, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--multirun cannot run inside torchrun" in refused("train", capsys, "--multirun", "seed=1,2")


@pytest.mark.parametrize(
    "argv", [["--help"], ["--cfg", "job"], ["--cfg", "job", "+experiment=demo"]], ids=lambda a: a[-1]
)
def test_help_and_configuration_do_not_wait_for_torch(argv):
    lines = [
        "import runpy, sys",
        f"sys.argv = {['train.py', *argv]!r}",
        "try:",
        "    runpy.run_path('train.py', run_name='__main__')",
        "finally:",
        "    print('torch' in sys.modules)",
    ]
    script = "\n".join(lines)
    before = os.times()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    after = os.times()
    assert done.stdout.splitlines()[-1] == "False"
    assert "trainer" in done.stdout
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < (2 if argv == ["--help"] else 3)
