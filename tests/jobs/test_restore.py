r"""Restoration: what a user gets for folders and archives of speckled images, and one message a mistake."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DIGITS, command, job, train

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
    speckle,
)
from scoregen.samplers.despeckle import OnIntensity

DRAWS = ["sampler=despeckle", "sampler.steps=2", "samples=3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    r"""Multiplicative, and additive."""
    folder = tmp_path_factory.mktemp("runs")
    small = [*DIGITS, "trainer.steps=2", "conditional=false"]
    train(folder / "log", *small, "sde=multiplicative", "sde.offset=0.02")
    train(folder / "additive", *small)
    return folder


def restore(checkpoint: Path, out: Path, *overrides: str) -> Path:
    return job("restore", f"checkpoint={checkpoint}", *overrides).run(out)


def intensities(*shape: int, seed: int = 0) -> np.ndarray:
    x = torch.from_numpy(np.random.default_rng(seed).uniform(0.2, 0.6, shape)).float()
    return speckle(x, 16, torch.Generator().manual_seed(seed)).clamp(0.01, 1).numpy()


def pictures(folder: Path) -> Path:
    r"""One picture of each kind, of different sizes."""
    pytest.importorskip("tifffile")
    (folder / "sub").mkdir(parents=True)
    Image.fromarray((intensities(9, 13) * 255).astype(np.uint8)).save(folder / "grey.png")
    Image.fromarray((intensities(20, 11, 3) * 255).astype(np.uint8)).save(folder / "sub" / "colour.jpg")
    Image.fromarray((intensities(8, 8) * 65535).astype(np.uint16)).save(folder / "deep.tif")
    Image.fromarray(intensities(5, 30)).save(folder / "float.tiff")
    return folder


def stack(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


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


OTHER = "{_target_:scoregen.samplers.PixelObservation}"
COUNTS = ["LOG", "images=x.npz", "samples=1", "observation=poisson"]
STEPS = ["LOG", "images=x.npz", "looks=4", "samples=1", "observation=quantised"]
MISTAKES = {
    "large": (["LOG", "images=rgb", "looks=4", "max_pixels=63"], "8 x 8 pixels, more than 63. .*, or raise max_pixels"),
    "no-draws": (["LOG", "images=x.npz", "looks=4", "sampler=ddim"], "sampler: needs samples=1 or more"),
    "key": (["LOG", "images=x.npz", "looks=4", "+label=3"], "label: .* is not an argument of scoregen.jobs.Restore"),
    "no-input": (["LOG", "looks=4"], "images: a value is required"),
    "no-looks": (["LOG", "images=x.npz"], "looks: must be > 0, .* got None"),
    "looks": (["LOG", "images=x.npz", "looks=0"], "looks: must be > 0, .* got 0.0"),
    "looks-type": (["LOG", "images=x.npz", "looks=many"], "looks: must be a number, estimate or null, got 'many'"),
    "looks-many": (["LOG", "images=x.npz", "looks=1e9"], "looks: .*There is nothing to remove"),
    "additive": (["ADDITIVE", "images=x.npz", "looks=4"], "checkpoint: despeckling needs a multiplicative process"),
    "missing": (["LOG", "images=y.npz", "looks=4"], r"images: '.*y.npz' does not exist. Did you mean 'x.npz'\?"),
    "zeros": (
        ["LOG", "images=zero.npz", "looks=4"],
        r"images: 'zero.npz', image 1, has 64 intensities of zero, of 64; .* nodata=0 .*floor=0.5",
    ),
    "infinite": (["LOG", "images=inf.npz", "looks=4", "floor=0.1"], r"'inf.npz', image 0, has infinite values"),
    "no-images": (["LOG", "images=other.npz", "looks=4"], r"must hold 'images', got \['x'\]"),
    "text": (["LOG", "images=words.npz", "looks=4"], r"of integers, floats or complex numbers, got \(2, 8, 8\) of <U3"),
    "vectors": (["LOG", "images=flat.npz", "looks=4"], r"must be \(H, W\), .* got \(8,\)"),
    "no-archive": (["LOG", "images=text.npz", "looks=4"], "is not a readable .npz file"),
    "empty": (["LOG", "images=empty", "looks=4"], r"no images \(.png, .*\) under '.*empty'"),
    "alpha": (["LOG", "images=rgba", "looks=4"], "'a.png' has mode RGBA. Convert it"),
    "broken": (["LOG", "images=broken", "looks=4"], "b.png' is not a readable image"),
    "observation-draws": (["LOG", "images=x.npz", "looks=4", "observation=gamma"], "observation: needs samples=1"),
    "observation-law": (
        ["LOG", "images=x.npz", "looks=4", "samples=1", f"observation={OTHER}"],
        "observation: must be a law of speckle or counts .*, got scoregen.samplers.PixelObservation",
    ),
    "counts-looks": ([*COUNTS, "looks=4"], "looks: is of speckle, and observation=poisson is of counts, got looks=4"),
    "counts-unit": ([*COUNTS, "unit=db"], "unit: is of speckle"),
    "counts-floor": ([*COUNTS, "floor=1"], "floor: is of speckle; zeros are counts"),
    "counts-gain": ([*COUNTS, "observation.gain=0"], "observation.gain: must be > 0, the value of one count in the"),
    "counts-values": (COUNTS, "observation: 'x.npz': observed values must be whole multiples >= 0 of gain=1 "),
    "steps": (
        [*STEPS, "observation.step=0.01", "observation.high=1"],
        "observation: 'x.npz': observed values must be low=0 [+] k step=0.01",
    ),
    "steps-of-floats": (STEPS, "observation.step and observation.high: a value is required, .*'x.npz' holds floats"),
    "steps-of-amplitudes": ([*STEPS, "unit=amplitude"], "unit: is intensity for observation=quantised"),
    "steps-floor": ([*STEPS, "floor=0.5"], "floor: would move values off the steps"),
    "steps-kinds": (
        ["LOG", "images=kinds", "looks=4", "samples=1", "observation=quantised", "scale=100"],
        "observation.high: files of uint8 and uint16 have several highest values",
    ),
    "steps-scales": (
        ["LOG", "images=kinds", "looks=4", "samples=1", "observation=quantised"],
        "scale: files of several types have several full scales, 255 to 65535. Steps need one: give scale",
    ),
    "probes": (["LOG", "images=x.npz", "looks=4", "samples=1", "probes=2"], "probes: is of the posterior mean"),
    "observation-looks": (
        ["LOG", "images=x.npz", "looks=4", "samples=1", "observation=gamma", "observation.looks=2"],
        "observation.looks: must be looks=4.0 of the job, got 2",
    ),
    "observation-sampler": (
        ["LOG", "images=x.npz", "looks=4", "samples=1", "observation=gamma", "sampler=ancestral"],
        "sampler: is gibbs.sampler where there is an observation",
    ),
    "gibbs-alone": (["LOG", "images=x.npz", "looks=4", "samples=1", "gibbs.rounds=9"], "gibbs: needs an observation"),
    "gibbs-rho": (
        ["LOG", "images=x.npz", "looks=4", "samples=1", "observation=gamma", "gibbs.rho_max=1e6"],
        "gibbs: rho_min and rho_max must lie between",
    ),
    "sampler": (
        ["LOG", "images=x.npz", "looks=4", "samples=2", "sampler=exponential_abm"],
        "sampler: the sampler must be stochastic .*ExponentialABM.*sampler=despeckle",
    ),
    "samples": (["LOG", "images=x.npz", "looks=4", "samples=-1"], "samples must be >= 0, got samples=-1"),
    "floor": (["LOG", "images=x.npz", "looks=4", "floor=0"], "floor: must be finite and > 0 for unit=intensity, got 0"),
    "tile": (["LOG", "images=x.npz", "looks=4", "tile=8", "overlap=5"], r"tile: overlap must lie in 0..4"),
    "out": (["LOG", "images=rgb", "looks=4", "out=rgb/out"], "out: '.*' lies in the folder to restore"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_and_nothing_is_written(case, runs, here, capsys):
    good, grey = intensities(2, 8, 8), np.full((8, 8, 4), 99, np.uint8)
    bad = {"zero": good * np.array([1, 0]).reshape(2, 1, 1), "inf": good + np.inf}
    for name, images in {"x": good, **bad, "words": good.astype("U3"), "flat": good[0, 0]}.items():
        np.savez(here / f"{name}.npz", images=images)
    np.savez(here / "other.npz", x=good)
    (here / "text.npz").write_text("x")
    for name in ("empty", "rgba", "rgb", "broken", "kinds"):
        (here / name).mkdir()
    Image.fromarray(grey).save(here / "rgba" / "a.png")
    Image.fromarray(grey[..., :3]).save(here / "rgb" / "a.png")
    (here / "broken" / "b.png").write_text("x")
    for k, dtype in enumerate(("uint8", "uint16")):
        np.save(here / "kinds" / f"{k}.npy", grey[..., 0].astype(dtype))
    argv, text = MISTAKES[case]
    known = {"LOG": f"checkpoint={runs / 'log'}", "ADDITIVE": f"checkpoint={runs / 'additive'}"}
    before = sorted(here.rglob("*"))
    capsys.readouterr()
    assert command("restore", *[known.get(a, a) for a in argv]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and re.search(text, err), err
    assert sorted(here.rglob("*")) == before


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


def test_results_of_something_else_are_refused(runs, here, capsys):
    np.savez(here / "x.npz", images=intensities(1, 8, 8))
    restore(runs / "log", here / "out", "images=x.npz", "looks=4")
    again = [f"checkpoint={runs / 'log'}", "images=x.npz", "out=out"]
    for argv, text in ((["looks=8"], "looks was 4.0, now 8.0"), (["looks=4", "floor=0.1"], "floor was None, now 0.1")):
        assert command("restore", *again, *argv) == 1
        assert text in capsys.readouterr().err
