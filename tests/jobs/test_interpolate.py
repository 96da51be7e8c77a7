r"""Interpolation and smoothness from the command line."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from tiny import command, compose, job, sample, train

from scoregen.errors import UserError

FAST = ["sampler=ddim", "sampler.steps=3"]
SHORT = ["frames=4", *FAST]


def interpolate(checkpoint, out, *overrides):
    return job("interpolate", f"checkpoint={checkpoint}", *overrides).run(out)


def frames(out):
    return np.load(out / "frames.npz")["frames"]


def first_image(digits, out, seed, *overrides):
    return np.load(sample(digits, out, *FAST, "n=1", "format=npz", f"seed={seed}", *overrides) / "samples.npz")[
        "images"
    ][0]


@pytest.mark.parametrize("blend", ["slerp", "linear"])
def test_the_ends_of_a_path_are_the_images_of_the_seeds(digits, tmp_path, blend):
    out = interpolate(digits, tmp_path / "path", *SHORT, "between=[3,8]", f"blend={blend}")
    (path,) = frames(out)
    assert path.shape == (4, 1, 8, 8)
    for end, seed in ((0, 3), (-1, 8)):
        np.testing.assert_allclose(path[end], first_image(digits, tmp_path / str(seed), seed), atol=1e-6)
    assert np.abs(np.diff(path, axis=0)).reshape(3, -1).max(1).min() > 1e-3


def test_a_row_for_each_label_under_guidance(digits, tmp_path):
    options = ["label=[2,7]", "guidance=2"]
    found = frames(interpolate(digits, tmp_path / "path", *SHORT, "between=[3,8]", *options))
    assert found.shape == (2, 4, 1, 8, 8)
    one = first_image(digits, tmp_path / "one", 8, "label=7", "guidance=2")
    np.testing.assert_allclose(found[1, -1], one, atol=1e-6)
    everything = frames(interpolate(digits, tmp_path / "all", *SHORT, "between=[3,8]", "label=all", "guidance=2"))
    np.testing.assert_allclose(everything[[2, 7]], found, atol=1e-6)


def test_pictures_show_the_frames(digits, tmp_path):
    out = interpolate(digits, tmp_path / "path", *SHORT, "between=[3,8]", "label=[1,2]")
    with Image.open(out / "path.gif") as gif:
        assert gif.n_frames == 6  # 4 forth, 2 back
        assert gif.size[0] == 2 * gif.size[1]
        assert gif.info["duration"] == 120
    with Image.open(out / "strip.png") as strip:
        assert strip.size[0] > 1.9 * strip.size[1]


def test_constant_speed_keeps_the_ends_and_evens_the_steps(digits, tmp_path):
    options = ["between=[3,8]", *FAST, "frames=11"]
    (even,) = frames(interpolate(digits, tmp_path / "even", *options))
    (steady,) = frames(interpolate(digits, tmp_path / "steady", *options, "constant_speed=true"))
    np.testing.assert_allclose(steady[[0, -1]], even[[0, -1]], atol=1e-6)
    spread = [np.linalg.norm(np.diff(x, axis=0).reshape(10, -1), axis=1).std() for x in (even, steady)]
    assert spread[1] < spread[0]


def test_two_images_are_ends_of_their_path(digits, tmp_path):
    r"""Encoding and decoding with 128 calls each brings them back."""
    from scoregen.data import Digits

    x = Digits().test.x[:2].numpy()
    Image.fromarray((x[0, 0] * 255).round().astype(np.uint8)).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", x[1])
    for ends in ("[A,A]", "[B,B]"):
        files = ends.replace("A", str(tmp_path / "a.png")).replace("B", str(tmp_path / "b.npy"))
        (path,) = frames(interpolate(digits, tmp_path / ends[1], "frames=4", f"between={files}"))
        expected = x[0] if "A" in ends else x[1]
        assert np.abs(path - expected).max() < 0.02
    files = f"[{tmp_path / 'a.png'},{tmp_path / 'a.png'}]"
    with pytest.raises(UserError, match="constant_speed: is for two seeds, not for images"):
        interpolate(digits, tmp_path / "no", "frames=4", f"between={files}", "constant_speed=true")


BAD = {
    "one": (["between=[1]"], r"between: must be two seeds \[0,1\] or two images"),
    "mixed": (["between=[1,a.png]"], "between: must be two seeds"),
    "number": (["between=1"], "between: must be a list of integers, a list of texts or null, got 1"),
    "missing": (["between=[a.png,b.png]"], "between: 'a.png' does not exist"),
    "blend": (["between=[0,1]", "blend=slurp"], "blend: must be slerp or linear, got 'slurp'"),
    "frames": (["between=[0,1]", "frames=1"], "frames must be >= 2"),
    "stochastic": (["between=[0,1]", "sampler=ancestral"], "sampler: sampler must be deterministic"),
    "label": (["between=[0,1]", "label=11"], "label: must lie in 0..9"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_in_interpolation_is_one_message(case, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv, text = BAD[case]
    sampler = [] if case == "stochastic" else FAST
    assert command("interpolate", f"checkpoint={digits}", *sampler, *argv) == 1
    assert re.search(text, capsys.readouterr().err)


def test_a_refused_interpolation_leaves_the_folder_free(digits, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="sampler: sampler must be deterministic"):
        interpolate(digits, out, "between=[0,1]", "sampler=ancestral")
    interpolate(digits, out, *FAST, "between=[0,1]")
    assert (out / "strip.png").is_file()


def test_a_picture_of_another_size_is_refused(digits, tmp_path):
    Image.new("L", (9, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"'.*a.png' has shape \(1, 8, 9\), the model makes \(1, 8, 8\). Resize it"):
        interpolate(digits, tmp_path / "out", "frames=4", f"between=[{tmp_path / 'a.png'},{tmp_path / 'a.png'}]")


@pytest.mark.parametrize("image", [np.full((1, 8, 8), 200, np.uint8), np.full((1, 8, 8), np.nan)], ids=["bytes", "nan"])
def test_an_array_in_other_units_is_refused(digits, tmp_path, image):
    np.save(tmp_path / "a.npy", image)
    with pytest.raises(UserError, match=r"values of '.*a.npy' run from .*, and those of the training lie in \[0, 1\]"):
        interpolate(digits, tmp_path / "out", "frames=4", f"between=[{tmp_path / 'a.npy'},{tmp_path / 'a.npy'}]")


def test_smoothness_is_reported(digits, tmp_path, monkeypatch, capsys):
    r"""The command line as the page has it."""
    monkeypatch.chdir(tmp_path)
    options = ["data=digits", *FAST, "pairs=4", "points=5", "inversion=2", "out=report"]
    assert command("smoothness", f"checkpoint={digits}", *options) == 0
    shown = capsys.readouterr().out
    names = ["ISTD", "CV", "largest/mean step", "mean step", "end-to-end distance"]
    names += ["FD-pixels at midpoints", "FD-pixels at ends"]
    assert all(f"| {name} " in shown for name in names)
    assert "| DDIMInversion(10) | 20 |" in shown
    found = json.loads((tmp_path / "report" / "smoothness.json").read_text())
    assert [m["name"] for m in found["metrics"]] == names
    protocol = found["metrics"][0]["protocol"]
    assert (protocol["pairs"], protocol["points"], protocol["network_calls"]) == (4, 5, 3)
    assert len(found["details"]["inversion"]) == 7
    for name in ("strips.png", "strips_constant_speed.png"):
        assert (tmp_path / "report" / name).is_file()
    assert command("smoothness", f"checkpoint={digits}", *options, "seed=1") != 0
    assert "seed was 0, now 1. Choose another out" in capsys.readouterr().err
    assert json.loads((tmp_path / "report" / "smoothness.json").read_text()) == found


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "checkpoint: a value is required. Give checkpoint="),
        (["RUN", "pairs=1"], "pairs must be >= 2, got pairs=1"),
        (["RUN", "label=10"], r"label: must lie in 0\.\.9 .*, got 10"),
        (["RUN", "pears=1"], "pears: there is no key 'pears'. Did you mean 'pairs'"),
        (["RUN", "data=toy2d"], "data: .* has shape"),
        (["RUN", "sampler=ancestral"], "sampler: sampler must be deterministic"),
    ],
    ids=["none", "pairs", "label", "key", "data", "sampler"],
)
def test_a_mistake_in_the_report_is_one_message(argv, text, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [a.replace("RUN", f"checkpoint={digits}") for a in argv]
    assert command("smoothness", *arguments) == 1
    assert re.search(text, capsys.readouterr().err)


def test_the_evaluation_is_still_there(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("evaluate", "pairs=1") == 1
    assert "pairs: there is no key 'pairs'" in capsys.readouterr().err


@pytest.mark.parametrize("weight", ["paper", "eq8", "latent"])
@pytest.mark.parametrize("loss", ["smooth_eq8", "smooth_paper", "smooth_latent"])
def test_weights_are_words_in_the_configuration(loss, weight):
    from scoregen.config import build

    node = compose(
        f"loss={loss}", f"loss.weight={weight}", "loss.target=per_level", "loss.estimator=vjp", "loss.every=4"
    )
    found = build(node["loss"])
    assert (found.every, len(found.a)) == (4, 9)


def test_a_killed_run_goes_on_with_its_target(tmp_path):
    r"""The running mean and what the last step saw are in the checkpoint: the weights agree bit by bit."""
    from tiny import TOY, weights

    options = [*TOY, "loss=smooth_latent", "trainer.checkpoint_every=2", "trainer.resume=auto"]
    whole = train(
        tmp_path / "whole",
        *options,
        "trainer.steps=4",
        "trainer.schedule._target_=scoregen.training.Constant",
        "~trainer.schedule.final",
    )
    parts = train(
        tmp_path / "parts",
        *options,
        "trainer.steps=2",
        "trainer.schedule._target_=scoregen.training.Constant",
        "~trainer.schedule.final",
    )
    train(
        tmp_path / "parts",
        *options,
        "trainer.steps=4",
        "trainer.schedule._target_=scoregen.training.Constant",
        "~trainer.schedule.final",
    )
    expected, found = weights(whole), weights(parts)
    assert "loss.a" in expected
    for key in expected:
        np.testing.assert_array_equal(found[key].numpy(), expected[key].numpy())
