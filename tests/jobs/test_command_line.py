r"""The commands as a user meets them: quick to answer, one message a mistake, the same images however they are made."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import pair
from PIL import Image
from tiny import DIGITS, TOY, command, image_folder, job, numbers, sample, torchrun, train, weights

from scoregen import load
from scoregen.errors import UserError

ROOT = Path(__file__).parents[2]
QUICK = ["trainer.steps=1", "preview.every=null", "dry_run=true", "model.network.channels=[4]"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "digits", *DIGITS, "trainer.steps=2")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(name, capsys, *argv) -> str:
    r"""The one line on standard error of a command that must fail and write nothing."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert command(name, *argv) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    assert sorted(Path.cwd().rglob("*")) == before
    return err


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
    "key-of-sampler": (["+sampler.stepss=1"], r"sampler.stepss: .*ExponentialABM. Did you mean 'steps'\?"),
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


SAMPLING = ["n=5", "sampler.steps=2", "label=all"]


def images(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((out / "images").iterdir())]


def pixels(out: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path), dtype=int) for path in sorted((out / "images").iterdir())])


@pytest.mark.parametrize("name, batches", [("heun", (64, 1, 2)), ("ancestral", (64, 2))])
def test_image_k_is_the_same_whatever_the_batch_size(digits, tmp_path, name, batches):
    r"""In numbers up to the order of sums in float32, so to one grey level of 255."""
    made = []
    for size in batches:
        out = sample(digits, tmp_path / f"{name}{size}", *SAMPLING, f"sampler={name}", f"batch_size={size}")
        made.append(pixels(out))
    assert all(np.abs(other - made[0]).max() <= 1 for other in made[1:])
    assert np.abs(made[0][0] - made[0][1]).max() > 1


def test_what_is_there_is_kept_and_only_the_rest_is_made(digits, tmp_path, capsys):
    out = sample(digits, tmp_path, *SAMPLING)
    whole = images(out)
    (out / "images" / "000003.png").unlink()
    (out / "images" / "000001.png").write_bytes(whole[0])
    capsys.readouterr()
    sample(digits, tmp_path, *SAMPLING)
    assert "5 samples, 4 already there" in capsys.readouterr().out
    assert images(out) == [whole[0], whole[0], *whole[2:]]
    sample(digits, tmp_path, *SAMPLING, "n=7")
    assert len(images(out)) == 7


def test_the_weights_are_named(digits, tmp_path, capsys):
    sample(digits, tmp_path / "a", *SAMPLING)
    assert "averaged (EMA) weights" in capsys.readouterr().out
    sample(digits, tmp_path / "b", *SAMPLING, "weights=model")
    assert "last step's weights" in capsys.readouterr().out


def test_an_archive_holds_the_unrounded_images(digits, tmp_path):
    png = sample(digits, tmp_path / "png", *SAMPLING)
    npz = sample(digits, tmp_path / "npz", *SAMPLING, "format=npz")
    archive = np.load(npz / "samples.npz")["images"]
    assert archive.shape == (5, 1, 8, 8)
    np.testing.assert_array_equal((archive[:, 0].clip(0, 1) * 255).round(), pixels(png))


def test_random_labels_belong_to_the_image(digits, tmp_path):
    few = sample(digits, tmp_path / "few", *SAMPLING, "format=npz", "label=random", "batch_size=2")
    many = sample(digits, tmp_path / "many", *SAMPLING, "format=npz", "label=random", "n=40")
    few, many = np.load(few / "samples.npz"), np.load(many / "samples.npz")
    assert few["labels"].tolist() == many["labels"][:5].tolist()
    assert len(set(many["labels"].tolist())) > 5
    np.testing.assert_allclose(few["images"], many["images"][:5], atol=1e-5)


def test_bfloat16_is_the_network_alone(digits, tmp_path):
    r"""Other samples, by rounding; drawn by the same noise."""
    exact = sample(digits, tmp_path / "exact", *SAMPLING, "format=npz")
    rounded = sample(digits, tmp_path / "rounded", *SAMPLING, "format=npz", "precision=bf16")
    exact, rounded = (np.load(folder / "samples.npz")["images"] for folder in (exact, rounded))
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()


def test_an_archive_holds_the_labels_that_were_asked_for(digits, tmp_path):
    npz = sample(digits, tmp_path, *SAMPLING, "format=npz", "label=[3,1]")
    assert np.load(npz / "samples.npz")["labels"].tolist() == [3, 1, 3, 1, 3]


BAD_SAMPLING = {
    "none": ([], "checkpoint: a value is required. Give checkpoint=outputs"),
    "missing": (["checkpoint=x"], "checkpoint: 'x' does not exist"),
    "no-checkpoint": (["checkpoint=."], "checkpoint: '.' is not a checkpoint of scoregen"),
    "key": (["chekpoint=x"], r"chekpoint: there is no key 'chekpoint'. Did you mean 'checkpoint'\?"),
    "key+": (["+labels=3"], r"labels: .*Did you mean 'label'\?"),
    "n": (["n=0"], "n must be >= 1, got n=0"),
    "type": (["n=few"], "n: must be an integer, got 'few'"),
    "format": (
        ["checkpoint=x", "format=jpg"],
        r"format: must be png, npz, csv or parquet, got 'jpg'. Did you mean 'png'\?",
    ),
    "weights": (
        ["checkpoint=x", "weights=emma"],
        r"weights: must be ema, model or ema:LENGTH .*'emma'. Did you mean 'ema'\?",
    ),
    "precision": (["checkpoint=x", "precision=half"], "precision: must be no or bf16, got 'half'"),
    "interpolate": (["RUN", "interpolate=[0,1]"], "interpolate: is a job of its own: scoregen interpolate between="),
    "restore": (["RUN", "restore=x"], "restore: is a job of its own: scoregen restore images="),
    "label": (["RUN", "label=10"], r"label: must lie in 0..9 \(or be 'all' or 'random'\), got 10"),
    "label-list": (["RUN", "label=[]"], "label: must not be an empty list"),
    "label-text": (
        ["RUN", "label=three"],
        "label: must lie in 0..9 .*, got 'three'; the classes of this checkpoint have no names",
    ),
    "guidance": (["RUN", "guidance=2"], "guidance: needs labels, got guidance=2.0 without. Give label=all"),
    "guidance-inf": (["RUN", "guidance=inf", "label=1"], "guidance: scale must be finite"),
    "unconditional": (["TOY", "label=1", "format=npz"], "label: the model is unconditional, got label=1"),
    "vectors": (["TOY"], r"format: png needs grey or RGB images, the model makes shape \(2,\). Give format=npz"),
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "toy", *TOY, "trainer.steps=1", "conditional=false")


@pytest.mark.parametrize("case", BAD_SAMPLING)
def test_a_mistake_in_sampling_is_one_message(case, digits, toy, here, capsys):
    argv, text = BAD_SAMPLING[case]
    runs = {"RUN": f"checkpoint={digits}", "TOY": f"checkpoint={toy}"}
    assert re.search(text, refused("sample", capsys, *[runs.get(a, a) for a in argv]))


def test_an_output_folder_with_other_things_is_refused(digits, here, capsys):
    sample(digits, here / "out", *SAMPLING)
    before = images(here / "out")
    other = [f"checkpoint={digits}", "out=out", *SAMPLING]
    assert "holds other results: seed was 0, now 1." in refused("sample", capsys, *other, "seed=1")
    assert "format was 'png', now 'npz'." in refused("sample", capsys, *other, "format=npz")
    assert "sampler.steps was 2, now 3." in refused("sample", capsys, *other, "sampler.steps=3")
    record = json.loads((here / "out" / "job.json").read_text())
    assert record["network_calls"] > 0
    (here / "out" / "job.json").write_text(json.dumps(record | {"weights_sha256": "of a run that stood there"}))
    assert "weights_sha256 was" in refused("sample", capsys, *other)
    (here / "out" / "job.json").write_text("{")
    assert "job.json' is missing or damaged" in refused("sample", capsys, *other)
    (here / "out" / "job.json").unlink()
    assert "contains 'grid.png' that this job did not write" in refused("sample", capsys, *other)
    assert images(here / "out") == before


def test_two_processes_compute_what_one_does(digits, tmp_path):
    r"""Training to the rounding of float32 sums in another order; sampling to one grey level."""
    overrides = [*TOY, "trainer.steps=4", "+trainer.optimizer.eps=1e-4", "trainer.checkpoint_every=2"]
    training = torchrun(tmp_path, "train.py", *overrides, "hydra.run.dir=two")
    sampling = pair(tmp_path, "sample.py", f"checkpoint={digits}", *SAMPLING, "out=images")
    one, alone = train(tmp_path / "one", *overrides), sample(digits, tmp_path / "alone", *SAMPLING)
    for process in (training, sampling):
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
        assert output.count("checkpoint:") == (process is sampling)
    for name in ("model", "ema"):
        expected, found = weights(one, name), weights(tmp_path / "two", name)
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=2e-6)
    for line, other in zip(numbers(one), numbers(tmp_path / "two"), strict=True):
        assert line == pytest.approx(other, rel=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone", "images", "one", "two"]
    assert np.abs(pixels(alone) - pixels(tmp_path / "images")).max() <= 1
    assert json.loads((tmp_path / "images" / "job.json").read_text())["seed"] == 0


def test_a_hook_that_fails_on_one_process_ends_both_with_a_checkpoint(tmp_path):
    overrides = [*TOY, "trainer.steps=4", "trainer.checkpoint_every=4", "preview.every=3", "preview.n=4"]
    overrides += ["sampler.steps=2", "hydra.run.dir=two"]
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "samples").touch()  # where the first process wants a folder
    process = pair(tmp_path, "train.py", *overrides)
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "Preview: process 0 failed (FileExistsError" in output
    assert (tmp_path / "two" / "checkpoints" / "last").resolve().name == "step_00000003"
    (tmp_path / "two" / "samples").unlink()
    process = pair(tmp_path, "train.py", *overrides, "trainer.resume=auto")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert sorted(p.name for p in (tmp_path / "two" / "samples").iterdir()) == [
        "step_00000003.png",
        "step_00000004.png",
    ]


GATHERS = """
import sys
from scoregen.command_line import run_job
from scoregen.parallel import gather, rank
from scoregen.training import Hook
import scoregen.monitors

class Gathers(scoregen.monitors.Preview):
    def __call__(self, moment):
        if rank() == 1:
            raise MemoryError("no memory left")
        gather(1)
        gather(2)

scoregen.monitors.Preview = Gathers
run_job("train")
"""


def test_a_hook_that_fails_before_the_processes_meet_in_it_ends_both(tmp_path):
    (tmp_path / "gathers.py").write_text(GATHERS)
    overrides = [*TOY, "trainer.steps=4", "trainer.checkpoint_every=4", "preview.every=3", "hydra.run.dir=two"]
    process = pair(tmp_path, str(tmp_path / "gathers.py"), *overrides)
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "Gathers: process 1 failed (MemoryError: no memory left)" in output
    assert (tmp_path / "two" / "checkpoints" / "last").resolve().name == "step_00000003"


def test_the_accuracy_of_two_processes_is_that_of_the_saved_weights(tmp_path):
    r"""Batch statistics are each process's own, those of the first one are saved."""
    from scoregen.data import Digits

    overrides = [
        "data=digits",
        "model=classifier",
        "model.channels=[4]",
        "model.blocks=[1]",
        "loss=cross_entropy",
        "preview.every=null",
    ]
    overrides += ["trainer.steps=60", "trainer.batch_size=8", "trainer.precision=no", "accuracy.every=10"]
    overrides += ["trainer.checkpoint_every=10", "trainer.keep_last=9", "+accuracy.batch_size=20"]
    overrides += ["trainer.optimizer.lr=0.02", "trainer.schedule.warmup=0"]
    process = pair(tmp_path, "train.py", *overrides, "trainer.ema_halflife=0", "hydra.run.dir=two")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    logged = {line["step"]: line["accuracy"] for line in numbers(tmp_path / "two") if "accuracy" in line}
    x, label = Digits().test.in_units(slice(None))
    assert len(logged) == 6
    for step, accuracy in logged.items():
        model = load(tmp_path / "two" / "checkpoints" / f"step_{step:08d}")
        assert accuracy == pytest.approx((model(x).argmax(1) == label).double().mean().item(), abs=1e-12)


def test_an_evaluation_samples_its_checkpoint(digits, tmp_path):
    options = ["data=digits", "features=random", "metrics=fast", "n=10", "sampler.steps=2", "cache=null"]
    job("evaluate", f"checkpoint={digits}", *options).run(tmp_path)
    assert len(np.load(tmp_path / "samples" / "samples.npz")["images"]) == 10
    assert "network_calls" in (tmp_path / "metrics.json").read_text()


def test_an_evaluation_that_fails_early_leaves_the_folder_free(digits, tmp_path):
    options = [f"checkpoint={digits}", "data=digits", "features=random", "metrics=fast", "n=10", "sampler.steps=2"]
    options += ["cache=null"]
    with pytest.raises(UserError, match="label: must lie in"):
        job("evaluate", *options, "label=99").run(tmp_path / "out")
    job("evaluate", *options).run(tmp_path / "out")
    assert (tmp_path / "out" / "job.json").exists()


def test_fewer_samples_than_are_there_are_refused(digits, tmp_path):
    sample(digits, tmp_path, *SAMPLING, "n=3")
    with pytest.raises(UserError, match=r"n: .* already contains 3 samples, but n=2"):
        sample(digits, tmp_path, *SAMPLING, "n=2")


def test_samples_of_a_sampler_that_couples_its_batch_do_not_depend_on_it(digits, tmp_path):
    options = ["sampler=adaptive_flow", "n=3", "format=npz"]
    for size in (1, 3):
        sample(digits, tmp_path / str(size), *options, f"batch_size={size}")
    one, three = (np.load(tmp_path / str(size) / "samples.npz")["images"] for size in (1, 3))
    assert np.array_equal(one, three)
