r"""From a folder of speckled scenes in units of their own to a restored scene, without a clean image."""

import json

import numpy as np
import pytest
import torch
from tiny import COMMON, job, numbers, train

import scoregen
from scoregen.errors import UserError
from scoregen.losses import SpeckleSplit
from scoregen.parallel import say_once

tifffile = pytest.importorskip("tifffile")
SMALL = ["model.network.channels=[4]", "model.network.layers=1", "trainer.resume=null"]
SPECKLED = ["+experiment=despeckle_speckled", "trainer.steps=3", "trainer.checkpoint_every=3", *COMMON, *SMALL]


def scene(seed: int) -> np.ndarray:
    r"""4-look intensities of two fields, about 2,000 and 8,000."""
    draw = np.random.default_rng(seed)
    fields = np.where(np.arange(40) < 25, 2000.0, 8000.0) * np.ones((36, 1))
    return (fields * draw.gamma(4, 1 / 4, fields.shape)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scenes").mkdir()
    for k in range(3):
        tifffile.imwrite(tmp_path / "scenes" / f"{k}.tif", scene(k), metadata=None)
    return tmp_path / "scenes"


def scenes(folder, *more: str) -> list[str]:
    return ["data=scenes", f"data.path={folder}", "data.size=16", "data.test=none", *more]


def test_a_folder_of_scenes_trains_a_despeckler_that_restores_them(folder, tmp_path, capsys):
    more = ["data.scale=8000", "loss.looks=4", "+data.augmentation={_target_:scoregen.data.Flip}"]
    run = train(tmp_path / "run", *SPECKLED, *scenes(folder, *more))
    assert numbers(run)[-1]["skipped"] == 0
    model = scoregen.load(run)
    assert model.least_s == pytest.approx(SpeckleSplit(4).least_s(model.sde))
    given = [f"checkpoint={run}", f"images={folder / '0.tif'}", "looks=4", "scale=8000", "probes=0"]
    out = job("restore", *given).run(tmp_path / "out")
    (restored,) = out.rglob("0.tif")
    mean = tifffile.imread(restored)
    assert mean.dtype == np.float32 and mean.shape == (36, 40)
    assert 500 < np.median(mean[:, :20]) < 8000  # in the units of the file
    assert "weights, which learned noise ratios from 0." in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^samples: samples need a denoiser of all noise levels"):
        job("restore", *given[:-1], "samples=2").run(tmp_path / "no")
    forgotten = [text for text in given if not text.startswith("scale")]
    with pytest.raises(UserError, match=r"whose highest intensity is 1.02.*scale=.*e\+03 is likely, scale=auto"):
        job("restore", *forgotten).run(tmp_path / "no")
    auto = job("restore", *forgotten, "scale=auto").run(tmp_path / "auto")
    assert 5000 < json.loads((auto / "job.json").read_text())["scale_used"] < 12_000  # the field of 8,000


def test_complex_scenes_train_by_their_parts(tmp_path):
    (tmp_path / "slc").mkdir()
    draw = np.random.default_rng(0)
    z = 70 * (draw.normal(size=(24, 24)) + 1j * draw.normal(size=(24, 24)))
    tifffile.imwrite(tmp_path / "slc" / "a.tif", z.astype(np.complex64), metadata=None)
    run = train(tmp_path / "run", *SPECKLED, *scenes(tmp_path / "slc", "data.scale=100", "loss.looks=1"))
    losses = [line["loss"] for line in numbers(run)]
    assert len(losses) == 3 and all(0 < loss < 10 for loss in losses)


def test_correlated_scenes_are_told_before_the_training(tmp_path, capfd):
    say_once.cache_clear()  # another test may have measured the same correlation
    (tmp_path / "scenes").mkdir()
    g = torch.Generator().manual_seed(0)
    parts = torch.nn.functional.avg_pool2d(torch.randn(8, 1, 302, 302, generator=g), 3, 1)
    np.save(tmp_path / "scenes" / "a.npy", parts.square().sum(0)[0].numpy())
    train(
        tmp_path / "run",
        *SPECKLED,
        *scenes(tmp_path / "scenes", "data.size=128", "loss.looks=4"),
        "trainer.batch_size=2",
    )
    assert "the speckle of neighbouring pixels is correlated" in capfd.readouterr().err
