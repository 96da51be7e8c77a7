import json

import pytest
import torch

from scoregen.data import ArrayDataset, Source
from scoregen.metrics import ClassifierFeatures, Pixels, Settings, evaluate, frechet_distance
from scoregen.models.classifier import Classifier

SETTINGS = Settings(bootstrap=10, subset=60, alpha=0.05)


class Noise(Source):
    r"""Independent uniform pixels: 100 training and 40 held-out images."""

    name, range, num_classes = "noise", (0.0, 1.0), None

    def load(self, train):
        return ArrayDataset(images(100 if train else 40, seed=int(train)))


def images(n, seed):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_held_out_images_reach_the_floor():
    r"""With the held-out images as the generated ones every number is its own floor (memorisation apart)."""
    report = evaluate(Noise().test.x, Noise(), Pixels(), SETTINGS)
    for number in report.numbers:
        if number.name != "memorised":
            assert number.value == pytest.approx(number.floor, abs=1e-12)


def test_frechet_distance_is_that_of_all_images_after_the_round_trip():
    x = images(30, 5)

    def rounded(y):
        return (y * 255).round().flatten(1) / 255

    expected = frechet_distance(rounded(x), rounded(Noise().train.x))
    assert evaluate(x, Noise(), Pixels(), SETTINGS)["FD-pixels"].value == pytest.approx(expected, rel=1e-6)


def test_order_and_batch_size_do_not_matter():
    x = images(30, 5)
    first = evaluate(x, Noise(), Pixels(), Settings(bootstrap=0, subset=60, batch_size=7))
    other = evaluate(x.flip(0), Noise(), Pixels(), Settings(bootstrap=0, subset=60))
    for a, b in zip(first.numbers, other.numbers, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-12)


def test_training_images_are_caught_as_copies():
    report = evaluate(Noise().train.x[:20], Noise(), Pixels(), SETTINGS)
    assert report["memorised"].value == 1.0
    assert {e["training"] for e in report.details["nearest_training_images"]} <= set(range(20))


def test_the_protocol_stands_beside_every_number(tmp_path):
    report = evaluate(images(30, 5), Noise(), Pixels(), SETTINGS, protocol={"sampler": "Heun", "network_calls": 35})
    saved = json.loads(report.write(tmp_path / "metrics.json").read_text())
    for number in saved["metrics"]:
        protocol = number["protocol"]
        assert protocol["extractor_hash"] == Pixels().hash
        assert (protocol["generated_images"], protocol["reference_images"], protocol["floor_images"]) == (30, 100, 30)
        assert protocol["network_calls"] == 35
        assert protocol["uint8_round_trip"] is True
    assert "network_calls: 35" in report.table()
    assert all(number.name in report.table() for number in report.numbers)


def test_few_images_are_warned_about():
    few = evaluate(images(60, 5), Noise(), Pixels(), SETTINGS).warnings
    assert any("60 images are few for 16 features" in text for text in few)
    assert any("floor is of 40 images" in text for text in few)
    many = evaluate(images(200, 5), Noise(), Pixels(resize=2), SETTINGS).warnings
    assert not any("few for" in text for text in many)


def test_a_classifier_adds_class_balance_and_confidence():
    torch.manual_seed(0)
    model = Classifier((1, 4, 4), 3, channels=(8,), blocks=(0,)).eval()
    x = images(30, 5)
    report = evaluate(x, Noise(), ClassifierFeatures(model, "noise"), Settings(bootstrap=0, uint8=False))
    shares = torch.bincount(model(x).argmax(1), minlength=3) / 30
    assert report.details["class_shares"] == pytest.approx(shares.tolist())
    assert report["confidence"].value == pytest.approx(float(model(x).softmax(1).amax(1).mean().detach()), abs=1e-5)


def test_vectors_are_measured_as_they_are():
    class Points(Noise):
        range = None

        def load(self, train):
            return ArrayDataset(5 * super().load(train).x.flatten(1))

    report = evaluate(Points().test.x, Points(), Pixels(), SETTINGS)
    assert report.protocol["uint8_round_trip"] is False
    assert report["energy distance"].value == pytest.approx(report["energy distance"].floor)


def test_samples_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"got \(1, 5, 4\) and \(1, 4, 4\) of noise"):
        evaluate(torch.rand(9, 1, 5, 4), Noise(), Pixels())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bootstrap": 1}, "bootstrap must be"),
        ({"subset": 2}, "subset must be"),
        ({"alpha": 0.0}, "alpha must lie"),
    ],
    ids=["bootstrap", "subset", "alpha"],
)
def test_bad_settings_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        Settings(**arguments)
