r"""A dry run reads every sample: what a header does not tell is found before the training, and named."""

import io

import numpy as np
import pytest
from PIL import Image
from pipelines import make_pipeline
from tiny import DIGITS, train

from scoregen.data import Digits, Folder
from scoregen.data.reading import read_all
from scoregen.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (700, 8, 8), dtype=np.uint8)


def write(folder, count=20, bad=()):
    r"""Pictures of noise; of the bad ones the first 60 bytes, which hold a good header."""
    folder.mkdir()
    for k in range(count):
        file = io.BytesIO()
        Image.fromarray(NOISE[k]).save(file, "PNG")
        (folder / f"{k:04}.png").write_bytes(file.getvalue()[: 60 if k in bad else None])
    return folder


@pytest.mark.parametrize("count", [20, 1500], ids=["here", "in workers"])
def test_all_samples_are_read_and_counted(tmp_path, count, monkeypatch):
    monkeypatch.setattr("scoregen.data.reading._AT_ONCE", 8 if count == 20 else 32)
    monkeypatch.setattr(np.random, "default_rng", None)  # nothing random in what is read
    files = write(tmp_path / "a", min(count, 700))
    for k in range(700, count):
        (files / f"{k:04}.png").hardlink_to(files / f"{k - 700:04}.png")
    assert read_all(Folder(str(files))) == f"data: all {count:,} samples were read and decoded"


def test_damaged_samples_are_named_and_end_a_dry_run(tmp_path, capsys):
    source = Folder(str(write(tmp_path / "a", 20, bad=(3, 7))), max_corrupt=0.1, test="none")
    source.max_corrupt = 0.05  # at the start headers alone were read, of a PNG all of it
    with pytest.raises(UserError, match=r"2 of the 20 samples of the train part cannot be read. The first: .*0003.png"):
        read_all(source)
    err = capsys.readouterr().err
    assert "0003.png" in err and "0007.png" in err


def test_a_few_damaged_samples_are_named_and_skipped(tmp_path, capsys):
    source = Folder(str(write(tmp_path / "a", 20, bad=(3,))), max_corrupt=0.1, test="none")
    assert read_all(source) == (
        "data: all 20 samples were read and decoded; 1 are damaged and will be skipped (data.max_corrupt=0.1)"
    )
    assert "0003.png" in capsys.readouterr().err


def test_a_damaged_test_picture_is_never_skipped(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    write(folder / "train")
    write(folder / "test", bad=(3,))
    with pytest.raises(UserError, match="1 of the 20 samples of the test part cannot be read"):
        read_all(Folder(str(folder), max_corrupt=0.5))


def test_data_in_memory_are_not_read_again():
    assert read_all(Digits()) == "data: all of it is in memory"


def test_a_dry_run_of_a_training_reads_all(tmp_path, capsys):
    good = [*DIGITS[1:], "data=folder", f"data.path={write(tmp_path / 'a')}", "dry_run=true"]
    train(tmp_path / "run", *good)
    assert "data: all 20 samples were read and decoded" in capsys.readouterr().out
    bad = [*DIGITS[1:], "data=folder", f"data.path={write(tmp_path / 'b', bad=(5,))}", "dry_run=true"]
    with pytest.raises(UserError, match=r"0005\.png"):
        train(tmp_path / "run", *bad)


@pytest.mark.parametrize("kind", ["empty", "half", "sixteen"])
def test_a_dry_run_with_captions_names_the_file(tmp_path, kind):
    r"""Case 07."""
    files = tmp_path / "photos"
    files.mkdir()
    generator = np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(files / f"{k}.png")
        (files / f"{k}.txt").write_text("a café", encoding="utf-8")
    bad = files / "5.png"
    if kind == "empty":
        bad.write_bytes(b"")
    elif kind == "half":
        bad.write_bytes(bad.read_bytes()[:400])
    else:
        Image.fromarray(np.zeros((16, 16), np.uint16)).save(bad)
    place = make_pipeline(tmp_path / "pipeline")
    overrides = ["model=latent_diffusion", f"model.pipeline={place}", "loss=latent", "model.rank=2", "data.size=8"]
    with pytest.raises(UserError, match=r"5\.png"):
        train(tmp_path / "run", "data=captions", f"data.path={files}", *overrides, "dry_run=true")
