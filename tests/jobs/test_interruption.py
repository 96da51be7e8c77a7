r"""Jobs that a signal or a lost folder ends between two items, and results that are not whole."""

import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import pair
from tiny import DIGITS, command, job, train
from torch import nn

import scoregen
from scoregen import interruption
from scoregen.data import Digits
from scoregen.errors import Interrupted, UserError
from scoregen.jobs.sample import Sample
from scoregen.metrics import Pixels
from scoregen.restoration.results import Results as Restorations
from scoregen.smoothing.results import Results

SIGNALS = ["SIGTERM", "SIGUSR1", "SIGINT"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "digits", *DIGITS, "trainer.steps=1")
    train(folder / "log", *DIGITS, "trainer.steps=1", "conditional=false", "sde=multiplicative", "sde.offset=0.02")
    images = np.random.default_rng(0).uniform(0.2, 0.6, (3, 8, 8)).astype(np.float32)
    np.savez(folder / "speckled.npz", images=images)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    r"""Contents of a folder, without the record of the command line."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".hydra")}


def sends(monkeypatch, owner: type, method: str, call: int, name: str = "SIGTERM") -> None:
    r"""A method that sends its process a signal at one of its calls, and then does its work."""
    calls, before = [0], getattr(owner, method)

    def sending(*arguments, **named):
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), getattr(signal, name))
        return before(*arguments, **named)

    monkeypatch.setattr(owner, method, sending)


def sample(runs: Path, *overrides: str):
    return job("sample", f"checkpoint={runs}/digits", "sampler=ddim", "sampler.steps=2", "n=6", *overrides)


@pytest.mark.parametrize("name", SIGNALS)
def test_after_a_signal_the_batch_is_finished_and_the_same_command_goes_on(runs, tmp_path, monkeypatch, name):
    before = signal.getsignal(getattr(signal, name))
    whole = sample(runs).run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        sends(patch, Sample, "_write", 3, name)
        text = rf"{name} ended the job before it was done. What is finished stays in '{tmp_path}/part'. Give the same"
        with pytest.raises(Interrupted, match=text) as caught:
            sample(runs, "batch_size=2").run(tmp_path / "part")
    assert caught.value.status == 128 + getattr(signal, name) and "\n" not in str(caught.value)
    assert signal.getsignal(getattr(signal, name)) == before
    assert len(list((tmp_path / "part" / "images").iterdir())) == 4
    assert not (tmp_path / "part" / ".lock").exists()
    assert files(sample(runs).run(tmp_path / "part")) == files(whole)


def test_a_signal_after_the_last_item_lets_the_job_end(runs, tmp_path, monkeypatch):
    sends(monkeypatch, Sample, "_finish", 1)
    sample(runs).run(tmp_path / "out")
    assert (tmp_path / "out" / "grid.png").exists()


def test_the_command_line_says_it_in_one_line_with_the_status_of_the_signal(runs, tmp_path, monkeypatch, capsys):
    sends(monkeypatch, Sample, "_write", 1, "SIGUSR1")
    out = f"out={tmp_path}/out"
    assert command("sample", f"checkpoint={runs}/digits", "n=4", "batch_size=1", out) == 128 + signal.SIGUSR1
    told = capsys.readouterr().err
    assert told.startswith("sample: SIGUSR1 ended the job") and told.count("\n") == 1


def test_a_restoration_goes_on_after_a_signal(runs, tmp_path, monkeypatch):
    options = [f"checkpoint={runs}/log", f"images={runs}/speckled.npz", "looks=4", "probes=1", "batch_size=1"]
    whole = job("restore", *options).run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        sends(patch, Restorations, "put", 2)
        with pytest.raises(Interrupted, match="SIGTERM ended the job"):
            job("restore", *options).run(tmp_path / "part")
    assert len(list((tmp_path / "part" / "parts").iterdir())) == 2
    assert files(job("restore", *options).run(tmp_path / "part")) == files(whole)


def certify() -> scoregen.Certify:
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    return scoregen.Certify(classifier=classifier, data=Digits(), n=200, max_inputs=5)


def test_a_certification_goes_on_after_a_signal(tmp_path, monkeypatch):
    whole = certify().run(tmp_path / "a" / "out")
    with monkeypatch.context() as patch:
        sends(patch, Results, "append", 2)
        with pytest.raises(Interrupted, match="SIGTERM ended the job"):
            certify().run(tmp_path / "b" / "out")
    lines = (tmp_path / "b" / "out" / "certificates.jsonl").read_text().splitlines()
    assert len(lines) == 3  # the header, two inputs
    again = files(certify().run(tmp_path / "b" / "out"))
    assert again["certificates.jsonl"] == files(whole)["certificates.jsonl"]
    assert again["table.md"] == files(whole)["table.md"]


def test_a_job_inside_another_one_ends_both(runs, tmp_path, monkeypatch):
    options = {"checkpoint": f"{runs}/digits", "data": Digits(), "features": Pixels(), "n": 4, "batch_size": 1}
    sends(monkeypatch, Sample, "_write", 2)
    with pytest.raises(Interrupted, match=f"What is finished stays in '{tmp_path}/out'"):
        scoregen.Evaluate(**options, cache=None).run(tmp_path / "out")
    assert len(list((tmp_path / "out" / "samples" / "parts").iterdir())) == 2
    assert not interruption._open and not list(tmp_path.rglob(".lock"))


TWO = """
import os, signal
from scoregen.command_line import run_job
from scoregen.jobs.sample import Sample
from scoregen.parallel import rank
import time

write = Sample._write
def sending(self, index, sample, out):
    if index == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    write(self, index, sample, out)

Sample._write = sending
run_job("sample")
"""


def test_two_processes_end_when_one_gets_a_signal(runs, tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    options = [f"checkpoint={runs}/digits", "sampler=ddim", "sampler.steps=2", "n=400", "batch_size=1", "out=two"]
    process = pair(tmp_path, str(tmp_path / "two.py"), *options)
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert output.count("SIGTERM ended the job before it was done") == 1, output
    assert "Connection" not in output and "job.py" not in output, output
    assert 1 < len(list((tmp_path / "two" / "images").iterdir())) < 100
    assert not (tmp_path / "two" / ".lock").exists()


@pytest.mark.parametrize("deleted", [False, True], ids=["renamed", "deleted"])
def test_a_job_whose_folder_disappears_ends_with_a_message(runs, tmp_path, monkeypatch, deleted):
    def moves(self, *arguments, **named):
        shutil.rmtree(tmp_path / "out") if deleted else (tmp_path / "out").rename(tmp_path / "moved")
        monkeypatch.undo()
        return type(self).__call__(self, *arguments, **named)

    one = sample(runs)
    monkeypatch.setattr(type(one.sampler), "__call__", moves)
    with pytest.raises(UserError, match=r"out: '.*out' was renamed or deleted while this job wrote there"):
        one.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_certification_whose_folder_disappears_ends_with_a_message(tmp_path, monkeypatch):
    append = Results.append

    def moves(self, record):
        append(self, record)
        if (tmp_path / "out").exists():
            (tmp_path / "out").rename(tmp_path / "moved")

    monkeypatch.setattr(Results, "append", moves)
    with pytest.raises(UserError, match=r"out: '.*out' was renamed or deleted while this job wrote there"):
        certify().run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "flipped": flip,
    "other shape": lambda path: shutil.copy(path.with_name(f"big{path.suffix}"), path),
    "text": lambda path: path.write_text("no picture"),
}


@pytest.mark.parametrize("form", ["png", "npz"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_samples_are_made_again_and_counted(runs, tmp_path, capsys, damage, form):
    if (damage, form) == ("flipped", "npz"):
        pytest.skip("an .npy has no checksum")
    whole = files(sample(runs, f"format={form}").run(tmp_path / "out"))
    place = tmp_path / "out" / ("images" if form == "png" else "parts")
    suffix = "png" if form == "png" else "npy"
    scoregen.pictures.save_image(torch.zeros(1, 9, 9), place / "big.png")
    np.save(place / "big.npy", np.zeros((1, 9, 9), np.float32))
    for index in (1, 4):
        DAMAGE[damage](place / f"{index:06d}.{suffix}")
    for big in place.glob("big.*"):
        big.unlink()
    capsys.readouterr()
    assert files(sample(runs, f"format={form}").run(tmp_path / "out")) == whole
    assert re.search(r"6 samples, 4 already there, 2 damaged and made again\n", capsys.readouterr().out)


@pytest.mark.parametrize("damage", ["empty", "cut off", "flipped"])
@pytest.mark.parametrize("kind", ["archive", "pictures", "deviations"])
def test_damaged_restorations_are_made_again_and_counted(runs, tmp_path, capsys, damage, kind):
    if (damage, kind) == ("flipped", "deviations"):
        pytest.skip("an .npy has no checksum")
    images = f"{runs}/speckled.npz"
    if kind != "archive":
        for k, x in enumerate(np.load(images)["images"]):
            scoregen.pictures.save_image(torch.from_numpy(x)[None], tmp_path / "images" / f"{k}.png")
        images = str(tmp_path / "images")
    options = [f"checkpoint={runs}/log", f"images={images}", "looks=4", "probes=1"]
    whole = files(job("restore", *options).run(tmp_path / "out"))
    place = {"archive": "parts/000001.npz", "pictures": "images/1.png", "deviations": "std/1.png.npy"}[kind]
    DAMAGE[damage](tmp_path / "out" / place)
    capsys.readouterr()
    assert files(job("restore", *options).run(tmp_path / "out")) == whole
    assert "images: 3, 2 already there, 1 damaged and made again\n" in capsys.readouterr().out
