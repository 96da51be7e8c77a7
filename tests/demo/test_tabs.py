r"""What stands behind the page of the demo: its buttons make what the jobs make, and a mistake is one message."""

import re
import shlex

import numpy as np
import pytest
import torch
from demo_parts import quoted, repeated
from PIL import Image
from tiny import job

import scoregen
from scoregen.errors import UserError
from scoregen.jobs.demo_certifying import Certifying, curve_png, escaped, in_words, share, votes_png
from scoregen.jobs.demo_sampling import _told
from scoregen.jobs.demo_sampling import command as spoken
from scoregen.jobs.demo_tabs import Folders
from scoregen.smoothing import Gaussian, SmoothedClassifier


@pytest.mark.parametrize("label", [{"label": "all", "guidance": 2}, {"label": 3, "guidance": 1}, {"label": "none"}])
def test_samples_are_those_of_the_command_that_the_page_shows(both, tmp_path, label, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = both.sample.sample("ddim", 3, 4, 5, tmp_path / "page", **label)
    job = repeated(found.command, tmp_path / "job")
    assert found.pictures[0].read_bytes() == (job / "grid.png").read_bytes()
    assert "sampler.steps=3" in found.command and "seed=5" in found.command
    assert (f"label={label['label']}" in found.command) == (label["label"] != "none")
    assert found.text.startswith(f"{3 * int(label.get('guidance', 1))} network calls an image.")


def test_samples_of_vectors_are_those_of_the_command_too(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tabs = scoregen.Demo(checkpoint=f"{runs}/toy").tabs()
    found = tabs.sample.sample("heun", 4, 6, 0, tmp_path / "page")
    job = repeated(found.command, tmp_path / "job")
    assert "format=npz" in found.command and "sampler.steps=2" in found.command
    assert np.array_equal(*(np.load(place / "samples.npz")["images"] for place in (tmp_path / "page", job)))


def test_a_path_is_that_of_the_command_that_the_page_shows(both, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = both.interpolate.interpolate("ddim", 2, [3, 4], 3, tmp_path / "page", label=1, guidance=1)
    job = repeated(found.command, tmp_path / "job")
    assert [file.read_bytes() for file in found.pictures] == [
        (job / name).read_bytes() for name in ("path.gif", "strip.png")
    ]


@pytest.mark.parametrize("name", ["speckled.npy", "picture.png"])
def test_an_upload_is_restored_as_by_the_job(runs, log, tmp_path, name):
    values = {"unit": "intensity", "scale": "", "floor": None, "samples": 0, "probes": 1, "seed": 2}
    found = log.despeckle(f"{runs}/{name}", "4", tmp_path / "page", **values)
    same = ["looks=4", "probes=1", "seed=2", f"checkpoint='{quoted(runs)}/log'", f"images='{quoted(runs)}/{name}'"]
    made = job("restore", *same).run(tmp_path / "job")
    assert found.file.read_bytes() == (made / "images" / name).read_bytes()
    assert found.page == (made / "report.html").read_text()
    assert len(found.figures) == 4 and all("<img" in figure for figure in found.figures)
    assert "speckle: 4 looks" in found.text and str(tmp_path) not in found.text


def test_a_certificate_is_that_of_the_smoothed_classifier(runs, both):
    given = {"alpha": 0.01, "method": "fixed", "seed": 7}
    found = both.certify(f"{runs}/picture.png", 4.0, 500, n0=50, **given)
    x = torch.from_numpy(np.array(Image.open(runs / "picture.png"))).float()[None, None] / 255
    g = SmoothedClassifier(scoregen.load(f"{runs}/classifier"), Gaussian(4.0), 10)
    draws = torch.Generator().manual_seed(7)
    (expected,) = g.certify(x, 500, alpha=0.01, n0=50, method="fixed", generator=draws)
    assert found.certificate == expected and (expected.counts > 0).sum() > 1  # so that the seed counts
    assert f"alpha = {expected.alpha:g}" in found.text
    assert found.seen and found.votes and found.curve


def certificate(label: int, p_lower: float, p_upper: float, counts: list[int]):
    from scoregen.smoothing import Certificate

    radius = max(0.0, Gaussian(0.5).radius(p_lower, p_upper))
    return Certificate(label, radius, "l2", p_lower, p_upper, torch.tensor(counts), sum(counts), 0.001, 2)


@pytest.mark.parametrize(("p_lower", "p_upper"), [(0.9, 0.1), (0.999, 0.001), (0.7, 0.2)])
def test_the_curves_of_the_votes_meet_at_the_certified_radius(p_lower, p_upper):
    radius = torch.tensor(Gaussian(0.5).radius(p_lower, p_upper), dtype=torch.float64)
    winner, other = share(p_lower, 0.5, -1), share(p_upper, 0.5, 1)
    torch.testing.assert_close(winner(radius), other(radius), rtol=0, atol=1e-12)
    assert winner(radius * 0) == pytest.approx(p_lower) and other(radius * 0) == pytest.approx(p_upper)
    assert winner(0.9 * radius) > other(0.9 * radius)


def test_a_certificate_says_its_radius_rounded_down_and_its_alpha():
    found = certificate(2, 0.99, 0.01, [0, 3, 997])
    told = in_words(found, ["a", "b", "c*"])
    shown = float(re.search(r"radius ([\d.]+)", told)[1])
    assert found.radius - 1e-3 < shown <= found.radius
    assert told.startswith(r"**Class c\*, ") and "at least 0.999 " in told and "alpha = 0.001" in told
    abstains = in_words(certificate(-1, 0.4, 0.6, [300, 300, 400]), ["a", "b", "c"])
    assert abstains.startswith("**Abstains.**") and "radius" not in abstains
    for one in (found, certificate(-1, 0.0, 1.0, [0] * 20 + [5] * 20)):
        names = [str(k) for k in range(len(one.counts))]
        assert votes_png(one, names)[:4] == curve_png(one, 0.5)[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("shape", "range", "told"),
    [
        ((1, 8, 8), (-1.0, 1.0), ""),
        ((3, 8, 8), (0.0, 1.0), "The upload was taken for a colour picture. "),
        ((1, 4, 4), (0.0, 1.0), "The upload was resized as a whole from 8 x 8 to 4 x 4 pixels. "),
        ((1, 4, 2), (0.0, 1.0), "resized as a whole from 8 x 8 to 2 x 4 pixels, which changes its proportions. "),
    ],
    ids=["as it is", "channels", "size", "proportions"],
)
def test_what_is_done_to_an_upload_is_said(runs, shape, range, told):
    x, text = Certifying(None, shape, range=range).read(f"{runs}/picture.png")
    low, high = range
    pixels = np.array(Image.open(runs / "picture.png")) / 255
    assert tuple(x.shape) == shape
    assert x.mean().item() == pytest.approx(low + (high - low) * pixels.mean(), abs=0.02)
    assert told in text and text.endswith("The certificate is about the result. " if told else "")


def test_uploads_that_do_not_fit_are_refused(runs, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 5, 5), np.float32))
    (tmp_path / "no.png").write_bytes(b"no picture")
    digits = Certifying(None, (1, 8, 8))
    for file, certifying, message in [
        (None, digits, "images: a value is required"),
        (f"{tmp_path}/x.npy", digits, r"the array has shape \(1, 5, 5\), the classifier takes \(1, 8, 8\)"),
        (f"{tmp_path}/no.png", digits, "no.png"),
        (f"{runs}/picture.png", Certifying(None, (1, 8, 8), range=None), "which no picture gives"),
        (f"{runs}/picture.png", Certifying(None, (2, 8, 8)), "2 channels, which no picture has"),
    ]:
        with pytest.raises(UserError, match=message):
            certifying.read(file)


def test_values_beyond_the_range_are_counted():
    values = np.array([0.0, 0.5, 1.0, 1.001, 1.2, -0.3, 0.7, 0.9])  # 1.001 is white after rounding too
    assert _told(values, (0.0, 1.0)).startswith(
        "25 % of the values lie outside the range of the data, 0 to 1. The lowest"
    )
    assert "lowest value is -0.3, the highest 1.2." in _told(values, (0.0, 1.0))
    assert _told(values[:4], (0.0, 1.0)) == ""
    assert _told(values, None) == "Black and white are the lowest and the highest value, -0.3 and 1.2."


def test_a_tab_that_cannot_be_served_is_absent_with_its_reason(runs, both, log):
    assert set(both.absent()) == {"despeckle"} and "multiplicative process" in both.absent()["despeckle"]
    assert set(log.absent()) == {"certify"} and "holds a denoiser" in log.absent()["certify"]
    toy = scoregen.Demo(checkpoint=f"{runs}/toy").tabs().absent()
    assert set(toy) == {"interpolate", "despeckle", "certify"} and "grey and RGB" in toy["interpolate"]
    alone = scoregen.Demo(checkpoint=f"{runs}/classifier").tabs().absent()
    assert set(alone) == {"sample", "interpolate", "despeckle"} and "makes no samples" in alone["sample"]


def test_a_classifier_from_elsewhere_takes_pictures_of_its_size(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import torch\ndef net():\n    return lambda x: x.mean((2, 3)) * 9\n")
    wants = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "size": 4}
    node = {"_target_": "scoregen.smoothing.ClassifierInput", **wants}
    tabs = job("demo", "classifier=mine:net", classifier_input=node).tabs()
    assert set(tabs.absent()) == {"sample", "interpolate", "despeckle"}
    found = tabs.certify(f"{runs}/picture.png", 0.25, 200, alpha=0.01, method="fixed", seed=0)
    assert len(found.certificate.counts) == 3
    assert "taken for a colour picture and resized as a whole from 8 x 8 to 4 x 4 pixels" in found.text


def test_values_out_of_range_are_refused(runs, both, tmp_path):
    draw = both.sample.sample
    for call, message in [
        (lambda: draw("ddim", 129, 1, 0, tmp_path), r"calls must lie in \[1, 128\]"),
        (lambda: draw("ddim", 1, 65, 0, tmp_path), r"n must lie in \[1, 64\]"),
        (lambda: draw("dddim", 1, 1, 0, tmp_path), "sampler: 'dddim' is not offered .* Did you mean 'ddim'"),
        (lambda: draw("ddim", 1, 1, 0, tmp_path, label=10), r"label: must lie in 0\.\.9"),
        (lambda: both.interpolate.interpolate("ddim", 1, [0, 1], 33, tmp_path), r"frames must lie in \[2, 32\]"),
        (
            lambda: both.interpolate.interpolate("ancestral", 2, [0, 1], 2, tmp_path),
            "sampler: sampler must be determ",
        ),
        (lambda: both.certify(f"{runs}/picture.png", 0.25, 200_000, alpha=0.1, method="fixed", seed=0), "n must lie"),
        (
            lambda: both.certify(f"{runs}/picture.png", 0.25, 200, alpha=0.1, method="fixed", seed=2**64),
            "seed must lie",
        ),
        (lambda: both.certify(f"{runs}/picture.png", 0, 200, alpha=0.1, method="fixed", seed=0), "sigma must be > 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_keys_that_say_nothing_are_refused(runs, monkeypatch):
    with pytest.raises(UserError, match="checkpoint, classifier: give one of them"):
        scoregen.Demo()
    with pytest.raises(ValueError, match=r"server_port must lie in \[1, 65535\]"):
        scoregen.Demo(checkpoint="x", server_port=0)
    with pytest.raises(UserError, match="classifier_weights: needs a classifier from elsewhere"):
        scoregen.Demo(checkpoint="x", classifier_weights="pretrained")
    with pytest.raises(UserError, match="null_label: needs checkpoint"):
        scoregen.Demo(classifier="mine:net", null_label=10)


@pytest.mark.parametrize(
    "value", ["outputs/a", "with space", "it's", 'a="b"', "back\\slash", "end\\", 'a\\"b', "[x]=(y)"]
)
def test_a_command_is_read_back_as_it_was_meant(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    _, name, *overrides = shlex.split(spoken("sample", {"checkpoint": value, "between": [0, 1], "n": 3}))
    found = OverridesParser.create().parse_overrides(overrides)
    assert name == "sample"
    assert [(one.key_or_group, one.value()) for one in found] == [("checkpoint", value), ("between", [0, 1]), ("n", 3)]


def test_folders_of_old_results_are_removed():
    folders = Folders()
    made = [folders.new() for _ in range(10)]
    assert [path.exists() for path in made] == [False] * 2 + [True] * 8
    root = folders.root
    del folders
    assert not root.exists()


def test_names_stay_as_they_are_in_markdown():
    assert escaped("a*b_c") == r"a\*b\_c" and escaped("plain 3.5 - x") == "plain 3.5 - x"
