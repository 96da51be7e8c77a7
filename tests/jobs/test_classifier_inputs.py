r"""What a classifier that is certified takes and gives: sizes, channels, logits, and images denoised before it."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from classifier_parts import FEW
from tiny import DIGITS, job, train
from torch import nn

from scoregen.errors import UserError
from scoregen.smoothing import ClassifierInput, Gaussian, Normalized, Resized, SmoothedClassifier
from scoregen.smoothing.classifiers import probe


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("a name was looked up"))


GREY = Normalized(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), [0.5], [0.5]).eval()


@pytest.mark.parametrize(
    ("wrap", "fits"),
    [
        (lambda logits: logits, True),
        (lambda logits: (logits,), True),
        (lambda logits: (logits, torch.zeros(len(logits), 4, 2, 2)), True),
        (lambda logits: {"logits": logits, "features": logits}, True),
        (lambda logits: {"out": logits}, True),
        (lambda logits: SimpleNamespace(logits=logits, loss=None), True),
        (lambda logits: (logits, logits), r"got tuple of a tensor \(\d+, 10\), a tensor \(\d+, 10\)"),
        (lambda logits: {"a": logits[0]}, r"got dict of 'a' a tensor \(10,\)"),
        (lambda logits: [], "got list of nothing"),
        (lambda logits: None, "got NoneType"),
        (lambda logits: logits[:, :, None], r"got a tensor \(\d+, 10, 1\)"),
    ],
    ids=["tensor", "tuple", "with-features", "named", "only", "object", "two", "vector", "empty", "none", "3d"],
)
def test_logits_are_found_where_classifiers_put_them(wrap, fits):
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def classify(g):
        return g.certify(x, n=20, n0=5, method="fixed", generator=torch.Generator().manual_seed(0))

    g = SmoothedClassifier(lambda image: wrap(GREY(image)), Gaussian(0.1), 10)
    if fits is True:
        plain = SmoothedClassifier(GREY, Gaussian(0.1), 10)
        assert torch.equal(torch.as_tensor(classify(g)[0].counts), torch.as_tensor(classify(plain)[0].counts))
        assert probe(g.classifier, x[0]) == 10
        return
    with pytest.raises(ValueError, match=f"must return logits .*{fits}"):
        classify(g)
    with pytest.raises(UserError, match=f"classifier: must return logits .*{fits}"):
        probe(g.classifier, x[0])


def test_nan_is_named():
    x = torch.rand(1, 8, 8)
    with pytest.raises(UserError, match="its logits hold NaN for the first input"):
        probe(lambda image: GREY(image) / 0 * 0, x)
    with pytest.raises(ValueError, match="finite numbers, got NaN"):
        SmoothedClassifier(lambda image: GREY(image) / 0 * 0, Gaussian(0.1), 10).certify(x[None], n=10, method="fixed")


def test_resizing_and_normalising_are_exact_where_they_can_be():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    seen = []
    Resized(Normalized(seen.append, [2.0], [4.0]), size=2)(x)
    torch.testing.assert_close(seen[0], (nn.functional.interpolate(x, 2, mode="bilinear", antialias=True) - 2) / 4)
    Resized(seen.append, size=4, resize=9)(x)  # it has the size
    assert seen[1] is x
    Resized(seen.append, size=2, resize=4)(x)
    assert torch.equal(seen[2], x[:, :, 1:3, 1:3])
    Resized(seen.append, size=(2, 3), resize=2)(torch.rand(1, 1, 4, 8))
    assert seen[3].shape[2:] == (2, 3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Normalized(GREY, [0.5], [0.5, 0.5]), "a number for each channel"),
        (lambda: Normalized(GREY, [0.5], [0.0]), "std > 0"),
        (lambda: Normalized(GREY, [0.5] * 3, [0.5] * 3)(torch.rand(1, 1, 8, 8)), r"of 3 channels, got .* \(1, 8, 8\)"),
        (lambda: Resized(GREY, 8, resize=4), "resize must be at least size"),
        (lambda: Resized(GREY, 0), "size must be a whole number"),
        (lambda: ClassifierInput(mean=[0.5]), "mean and std belong together"),
        (lambda: ClassifierInput(resize=8), "resize needs size"),
    ],
)
def test_mistakes_in_them_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def gray():
    return GREY


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gray", sys.modules[__name__])

    def certify(*overrides, **nodes):
        return job("certify", "data=digits", *FEW, *overrides, **nodes).run(tmp_path / "certified")

    return certify


MISTAKES = {
    "channels": (
        ["classifier_input.mean=[0,0,0]", "classifier_input.std=[1,1,1]"],
        "takes images of 3 channels, digits",
    ),
    "no-source": (["classifier=null", "checkpoint=a", "classifier_weights=b"], "classifier_weights: needs classifier="),
    "half": (["classifier_input.mean=[0.5]"], "classifier_input: mean and std belong together"),
    "weights": (["classifier_weights=nowhere.pt"], "classifier_weights: 'nowhere.pt' does not exist"),
    "size": (["classifier_input.size=[8]"], "classifier_input"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_of_a_job_are_one_message(run, case):
    argv, text = MISTAKES[case]
    with pytest.raises(UserError, match=text):
        run("classifier=gray:gray", *argv)


def test_a_library_that_takes_other_units_or_channels_is_named(models, run, tmp_path):
    source, weights, _ = models["timm"]
    with pytest.raises(UserError, match=f"classifier: '{source}' takes images of 3 channels, digits has 1"):
        run(f"classifier={source}", f"classifier_weights={weights}")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    r"""A denoiser of digits of 8 pixels, and a source of 16 pixels."""
    return train(tmp_path_factory.mktemp("small") / "run", *DIGITS, "trainer.steps=1")


def enlarged(folder, side=16, channels=1):
    x = np.random.default_rng(0).integers(0, 256, (12, channels, side, side), dtype=np.uint8)
    label = np.arange(12) % 10
    np.savez(folder / "a.npz", train_images=x, train_labels=label, test_images=x, test_labels=label)
    return {"_target_": "scoregen.data.Npz", "path": str(folder / "a.npz")}


def pooled():
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(64, 10)).eval()


def test_a_denoiser_of_smaller_images_sees_means_where_that_is_stated(small, run, tmp_path):
    purify, source = ["classifier=gray:pooled", f"purify.checkpoint={small}"], enlarged(tmp_path)
    with pytest.raises(
        UserError, match=r"purify.size: the denoiser of '.*' takes images \(1, 8, 8\), a has \(1, 16, 16"
    ):
        run(*purify, data=source)
    for wrong in (4, 16):
        with pytest.raises(
            UserError, match=rf"got purify.size={wrong}. Give data of its size \(data.size=8\), or purify"
        ):
            run(*purify, f"purify.size={wrong}", data=source)
    assert (run(*purify, "purify.size=8", data=source) / "certificates.jsonl").is_file()
    for side, channels in ((12, 1), (8, 3)):
        with pytest.raises(UserError, match=r"purify.(size|checkpoint): the denoiser of"):
            run(*purify, "purify.size=8", data=enlarged(tmp_path, side, channels))
    with pytest.raises(UserError, match=r"purify.size: needs purify.checkpoint"):
        run("classifier=gray:pooled", "purify.size=8", data=source)
