r"""Restoration: a mistake is one message, and nothing is written."""

import re

import numpy as np
import pytest
from PIL import Image
from restore_parts import intensities, restore
from tiny import command


@pytest.fixture(scope="module")
def runs(log_and_additive):
    return log_and_additive


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


def test_results_of_something_else_are_refused(runs, here, capsys):
    np.savez(here / "x.npz", images=intensities(1, 8, 8))
    restore(runs / "log", here / "out", "images=x.npz", "looks=4")
    again = [f"checkpoint={runs / 'log'}", "images=x.npz", "out=out"]
    for argv, text in ((["looks=8"], "looks was 4.0, now 8.0"), (["looks=4", "floor=0.1"], "floor was None, now 0.1")):
        assert command("restore", *again, *argv) == 1
        assert text in capsys.readouterr().err
