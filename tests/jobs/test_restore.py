r"""Restoration: what a user gets for folders and archives of speckled images."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from restore_parts import intensities, restore, stack

import scoregen
from scoregen.rng import Stream, generator, generators
from scoregen.samplers import (
    DaleLangevin,
    Despeckler,
    GammaObservation,
    Karras,
    PoissonObservation,
    Quantised,
    SplitGibbs,
    Tiled,
)
from scoregen.samplers.despeckle import OnIntensity

DRAWS = ["sampler=despeckle", "sampler.steps=2", "samples=3"]


@pytest.fixture(scope="module")
def runs(log_and_additive):
    return log_and_additive


def pictures(folder: Path) -> Path:
    r"""One picture of each kind, of different sizes."""
    pytest.importorskip("tifffile")
    (folder / "sub").mkdir(parents=True)
    Image.fromarray((intensities(9, 13) * 255).astype(np.uint8)).save(folder / "grey.png")
    Image.fromarray((intensities(20, 11, 3) * 255).astype(np.uint8)).save(folder / "sub" / "colour.jpg")
    Image.fromarray((intensities(8, 8) * 65535).astype(np.uint16)).save(folder / "deep.tif")
    Image.fromarray(intensities(5, 30)).save(folder / "float.tiff")
    return folder


def test_an_archive_holds_mean_and_deviation_of_the_library(runs, here):
    x = intensities(3, 9, 14)
    np.savez(here / "x.npz", images=x)
    out = restore(runs / "log", here / "out", "images=x.npz", "looks=4", *DRAWS, "seed=5")
    found = stack(out / "restored.npz")
    tiled = Tiled(scoregen.load(runs / "log"), 8, channels=1)
    sampler = DaleLangevin(2, Karras(1.0))
    with torch.no_grad():
        mean, deviation = Despeckler(tiled, 4, sampler).sample_mean(
            torch.from_numpy(x)[:, None], 3, generators(5, Stream.RESTORE, 0, range(3))
        )
    np.testing.assert_allclose(found["images"], mean[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found["std"], deviation[:, 0], rtol=1e-4, atol=1e-6)
    assert json.loads((out / "job.json").read_text())["looks"] == 4.0


@pytest.mark.parametrize("options", [[], ["probes=0"], ["samples=1", "sampler=despeckle"], DRAWS], ids=str)
def test_the_result_does_not_depend_on_batches_and_company(options, runs, here):
    x = intensities(3, 9, 14)
    np.savez(here / "all.npz", images=x)
    np.savez(here / "one.npz", images=x[:1])
    options = ["looks=16", *options]
    whole = stack(restore(runs / "log", here / "a", "images=all.npz", *options) / "restored.npz")
    for name, other in (("all", ["batch_size=1"]), ("one", ["batch_size=2"])):
        part = stack(restore(runs / "log", here / f"b{name}", f"images={name}.npz", *options, *other) / "restored.npz")
        for key in whole:
            np.testing.assert_allclose(part[key], whole[key][: len(part[key])], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "options, keys",
    [([], {"images", "std"}), (["probes=0"], {"images"}), (["samples=1"], {"images"}), (DRAWS, {"images", "std"})],
    ids=["mean", "geometric", "draw", "draws"],
)
def test_deviations_are_there_where_the_estimate_has_them(options, keys, runs, here):
    np.savez(here / "x.npz", images=intensities(1, 8, 8))
    assert (
        stack(restore(runs / "log", here / "out", "images=x.npz", "looks=4", *options) / "restored.npz").keys() == keys
    )


def test_a_folder_is_restored_resumed_and_left_alone(runs, here, capsys):
    pictures(here / "in")
    before = {p: p.read_bytes() for p in (here / "in").rglob("*") if p.is_file()}
    options = ["images=in", "looks=16", *DRAWS]
    restore(runs / "log", here / "out", *options, "dry_run=true")
    assert not (here / "out").exists() and "images: 4, 0 already there" in capsys.readouterr().out
    out = restore(runs / "log", here / "out", *options)
    made = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert {str(p.relative_to(out)) for p in made} == {
        "job.json",
        "measures.json",
        "report.html",
        *(f"images/{name}" for name in ("deep.tif", "float.tiff", "grey.png", "sub/colour.jpg")),
        *(f"std/{name}.npy" for name in ("deep.tif", "float.tiff", "grey.png", "sub/colour.jpg")),
    }
    (out / "images" / "grey.png").unlink()
    Image.new("I;16", (8, 8), 7).save(out / "images" / "deep.tif")
    mine = (out / "images" / "deep.tif").read_bytes()
    capsys.readouterr()
    restore(runs / "log", out, *options)
    assert "images: 4, 3 already there" in capsys.readouterr().out
    assert (out / "images" / "grey.png").read_bytes() == made[out / "images" / "grey.png"]
    assert (out / "images" / "deep.tif").read_bytes() == mine
    assert {p: p.read_bytes() for p in (here / "in").rglob("*") if p.is_file()} == before


def test_scale_and_floor_are_in_the_units_of_the_images(runs, here):
    x = intensities(1, 8, 8)
    x[0, 0, :3] = [0, 0.001, 0.01]
    raised = np.maximum(x, 0.01)
    found = []
    for k, (images, options) in enumerate([(x, ["floor=0.01"]), (50 * x, ["floor=0.5", "scale=50"]), (raised, [])]):
        np.savez(here / f"{k}.npz", images=images)
        found.append(
            stack(restore(runs / "log", here / f"o{k}", f"images={k}.npz", "looks=4", *options) / "restored.npz")
        )
    for key in ("images", "std"):
        np.testing.assert_allclose(found[1][key], 50 * found[0][key], rtol=1e-4)
        np.testing.assert_allclose(found[2][key], found[0][key], rtol=1e-5)


CHAIN = ["samples=2", "gibbs.rounds=4", "gibbs.rho_max=0.5", "gibbs.sampler.steps=2"]


def test_draws_by_an_exact_law_are_those_of_the_library(runs, here):
    r"""With a missing pixel, whose neighbours do not see what stands in for it."""
    x = intensities(2, 9, 8)
    x[0, 3, 3] = np.nan
    np.savez(here / "x.npz", images=x)
    options = ["images=x.npz", "looks=4", "observation=gamma", *CHAIN]
    found = stack(restore(runs / "log", here / "out", *options, "seed=5") / "restored.npz")
    model = OnIntensity(Tiled(scoregen.load(runs / "log"), 8, channels=1))
    gibbs = SplitGibbs(GammaObservation(4), DaleLangevin(2, Karras(1.0)), 4, 0.5, 0.05)
    draws = [generator(5, Stream.RESTORE, 0, k) for k in range(2)]
    mean, deviation = gibbs.mean(model, torch.from_numpy(x)[:, None], 2, generator=draws)
    valid = np.isfinite(x)
    np.testing.assert_allclose(found["images"][valid], mean[:, 0].numpy()[valid], rtol=1e-4)
    np.testing.assert_allclose(found["std"][valid], deviation[:, 0].numpy()[valid], rtol=1e-2, atol=1e-6)
    assert np.isnan(found["images"][0, 3, 3])


def test_eight_bits_with_zeros_and_saturated_pixels_need_no_floor(runs, here):
    values = (intensities(9, 13) * 255).astype(np.uint8)
    values[:2], values[-2:] = 0, 255
    (here / "in").mkdir()
    Image.fromarray(values).save(here / "in" / "a.png")
    out = restore(runs / "log", here / "out", "images=in", "looks=4", "observation=quantised", *CHAIN)
    restored = np.asarray(Image.open(out / "images" / "a.png"))
    assert restored.shape == values.shape and np.median(restored[:2]) < np.median(restored[3:6])


@pytest.mark.parametrize("kind, high", [("uint8", 255), ("uint16", 65535), ("floats", 255)])
def test_steps_are_in_the_numbers_of_the_files(kind, high, runs, here, capsys):
    r"""`scale` of them is 1 in the training; of integers step and ends are those of their type."""
    values = (high / 2.55 * intensities(1, 9, 8)).round()
    values[0, 0], values[0, 4:] = 0, high
    np.savez(here / "x.npz", images=values.astype("float32" if kind == "floats" else kind))
    said = ["observation.step=1", "observation.high=255"] if kind == "floats" else []
    scale = high / 2.55
    options = ["images=x.npz", "looks=4", "observation=quantised", f"scale={scale}", *said, "seed=5"]
    found = stack(restore(runs / "log", here / "out", *options, *CHAIN) / "restored.npz")
    assert f"observation: steps of 1 from 0 to {high}, in the files" in capsys.readouterr().out
    law = Quantised(1 / scale, 0.0, 2.55, looks=4)
    model = OnIntensity(Tiled(scoregen.load(runs / "log"), 8, channels=1))
    gibbs = SplitGibbs(law, DaleLangevin(2, Karras(1.0)), 4, 0.5, 0.05)
    x = torch.from_numpy(values / scale).float()[:, None]
    mean, _ = gibbs.mean(model, x, 2, generator=[generator(5, Stream.RESTORE, 0, 0)])
    integers = kind.startswith("uint")  # which end at the highest, and are rounded
    right = (scale * mean[:, 0].numpy()).clip(max=high if integers else None)
    np.testing.assert_allclose(found["images"], right, rtol=1e-3, atol=0.51 if integers else 1e-3)


@pytest.mark.parametrize("run", ["log", "additive"])
def test_counts_are_restored_by_a_model_of_either_kind(run, runs, here, capsys):
    r"""As the library does, in the numbers of the file; zeros are counts, and -1 is no data."""
    counts = np.random.default_rng(0).poisson(20 * intensities(1, 9, 8)).astype(np.float32)
    counts[0, :2], counts[0, 3, 3] = 0, -1
    np.savez(here / "x.npz", images=0.5 * counts)
    options = ["images=x.npz", "observation=poisson", "observation.gain=0.5", "scale=10", "nodata=-0.5", "seed=5"]
    out = restore(runs / run, here / "out", *options, *CHAIN, "gibbs.rho_min=0.2")
    told = capsys.readouterr().out
    assert re.search(r"counts: median [\d.]+, noise ratio there 0.\d+; tiles of 8", told) and "residual of" in told
    found = stack(out / "restored.npz")
    gibbs = SplitGibbs(PoissonObservation(0.05), DaleLangevin(2, Karras(1.0)), 4, 0.5, 0.2)
    x = torch.from_numpy(np.where(counts < 0, np.nan, counts).astype(np.float32))[:, None] / 20
    model = Tiled(scoregen.load(runs / run), 8, channels=1)
    mean, deviation = gibbs.mean(model, x, 2, generator=[generator(5, Stream.RESTORE, 0, 0)])
    valid = counts >= 0
    np.testing.assert_allclose(found["images"][valid], 10 * mean[:, 0].numpy()[valid], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["std"][valid], 10 * deviation[:, 0].numpy()[valid], rtol=1e-2, atol=1e-4)
    assert found["images"][0, 3, 3] == -0.5 and (found["images"][valid] >= 0).all()
    assert json.loads((out / "measures.json").read_text())["gain"] == 0.5


def test_draws_below_zero_are_raised_and_told(runs, here, capsys):
    r"""An additive model does not know that counts are none below 0; the counts stay with the results."""
    np.savez(here / "x.npz", images=np.zeros((1, 8, 8), np.float32))
    options = ["images=x.npz", "observation=poisson", "scale=10", "nodata=-1", *CHAIN, "gibbs.rho_min=0.2"]
    checkpoint, found = scoregen.load(runs / "additive"), []
    gibbs = SplitGibbs(PoissonObservation(0.1), DaleLangevin(2, Karras(1.0)), 4, 0.5, 0.2)
    gibbs.mean(
        Tiled(checkpoint, 8, channels=1),
        torch.zeros(1, 1, 8, 8),
        2,
        generator=[generator(0, Stream.RESTORE, 0, 0)],
        callback=lambda k, rho, y, z: found.append(checkpoint.sde.from_chart(y)) if k == 3 else None,
    )
    low = torch.stack(found).amin(0)
    below = int((low < 0).sum())
    assert len(found) == 2 and below > 0
    for _ in range(2):  # and once more, where all is there already
        out = restore(runs / "additive", here / "out", *options)
        text = capsys.readouterr().out
        assert f"below 0: {below} of 64 restored values (" in text and "Lower gibbs.rho_min" in text
    one = json.loads((out / "measures.json").read_text())["altered"]
    assert one == {"below": below, "lowest": pytest.approx(10 * low.min().item(), rel=1e-4), "beyond": 0}
    assert f"Below 0: {below} of 64" in (out / "report.html").read_text()


def test_what_its_file_cannot_hold_is_told(runs, here, capsys):
    (here / "in").mkdir()
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(here / "in" / "a.png")
    out = restore(runs / "log", here / "out", "images=in", "looks=4", "observation=quantised", *CHAIN)
    text, one = capsys.readouterr().out, json.loads((out / "measures.json").read_text())["altered"]
    assert one["beyond"] and one["below"] == 0 and f"cut: {one['beyond']} of 64 restored values" in text
