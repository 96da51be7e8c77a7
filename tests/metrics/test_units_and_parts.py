r"""Metrics read a part a batch at a time, in the units that its source states."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from scoregen.data import ArrayDataset, Dataset, Source
from scoregen.metrics import Pixels, Settings, evaluate, istd, reference_features
from scoregen.metrics.features import AbstractClassifierFeatures
from scoregen.models.classifier import Classifier
from scoregen.pictures import save_grid, save_image

SETTINGS = Settings(bootstrap=0, subset=50, batch_size=16)
MOST = 16


class Guarded(Dataset):
    r"""A part that is read by at most 16 samples at a time."""

    def __init__(self, part):
        self.part, self.label, self.range = part, part.label, part.range

    def __len__(self):
        return len(self.part)

    def __getitem__(self, index):
        x, label = self.part[index]
        assert x.ndim == 3 or len(x) <= MOST, f"{len(x)} samples were read at once"
        return x, label

    def fingerprint(self):
        return self.part.fingerprint()


class Images(Source):
    r"""Digits in the units low to high, as floats or bytes; 120 for training and 60 for tests."""

    name = "images"

    def __init__(self, low=0.0, high=1.0, stored="floats", **parts):
        super().__init__(**parts)
        self.low, self.high, self.stored = low, high, stored

    @property
    def range(self):
        return self.low, self.high

    def load(self, train):
        x = (
            torch.from_numpy(load_digits().images[: 120 if train else 180][-120 if train else -60 :]).float()[:, None]
            / 16
        )
        if self.stored == "bytes":
            return Guarded(ArrayDataset((x * 255).round().to(torch.uint8), range=self.range))
        return Guarded(ArrayDataset(self.low + (self.high - self.low) * x))


def samples(low, high):
    return low + (high - low) * torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("stored", ["floats", "bytes"])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 255.0)], ids=["signed", "bytes"])
def test_the_same_pictures_in_other_units_have_the_same_numbers(low, high, stored):
    expected = evaluate(samples(0, 1), Images(), Pixels(), SETTINGS)
    found = evaluate(samples(low, high), Images(low, high, stored), Pixels(), SETTINGS)
    for one, other in zip(expected.numbers, found.numbers, strict=True):
        assert (other.name, other.value, other.floor) == (one.name, pytest.approx(one.value), pytest.approx(one.floor))
    assert found.protocol["range"] == (low, high)


def test_smoothness_measures_midpoints_in_the_units_of_the_data():
    def frechet(low, high):
        generate = lambda z: low + (high - low) * z.sigmoid()  # noqa: E731
        source = Images(low, high)
        return istd(generate, source.train.part, pairs=5, data_range=source.range, batch_size=5).frechet

    assert frechet(0.0, 255.0) == pytest.approx(frechet(0.0, 1.0))


def test_units_that_differ_do_not_share_a_cache(tmp_path):
    part = Images().train
    for data_range in ((0.0, 1.0), (-1.0, 1.0), None):
        reference_features(part, Pixels(), tmp_path, data_range=data_range, batch_size=MOST)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("test", "reference"), [("all", 180), ("none", 120)])
def test_data_of_one_part_are_the_reference_and_the_numbers_have_no_floor(test, reference):
    report = evaluate(samples(0, 1), Images(test=test), Pixels(), SETTINGS)
    assert (report.protocol["reference_images"], report.protocol["floor_images"]) == (reference, 0)
    assert [number.floor for number in report.numbers] == [None] * len(report.numbers)
    assert "memorised" not in [number.name for number in report.numbers]
    assert "no floor" in report.warnings[-1]
    json.dumps(report.as_dict())


def test_images_without_ends_of_their_range_are_measured_as_they_are():
    class Positive(Images):
        range = (0.0, float("inf"))

    report = evaluate(samples(0, 5), Positive(), Pixels(), SETTINGS)
    assert report.protocol["uint8_round_trip"] is False
    assert "the range of images has no ends" in report.warnings[-1]
    assert report["FD-pixels"].value != evaluate(samples(0, 1), Positive(), Pixels(), SETTINGS)["FD-pixels"].value


@pytest.mark.parametrize("data_range", [(-1.0, 1.0), (0.0, 255.0), (0.0, 1.0)], ids=str)
def test_pictures_span_the_range(tmp_path, data_range):
    from PIL import Image

    low, high = data_range
    x = low + (high - low) * torch.tensor([[[0.0, 51 / 255, 1.0]]])
    assert np.array(Image.open(save_image(x, tmp_path / "a.png", data_range=data_range)))[0].tolist() == [0, 51, 255]
    grid = Image.open(save_grid(x[None], tmp_path / "b.png", data_range=data_range))
    assert [grid.getpixel((grid.width * (2 * k + 1) // 6, 0)) for k in range(3)] == [0, 51, 255]


def test_a_classifier_sees_images_in_the_units_that_it_was_trained_on(tmp_path):
    torch.manual_seed(0)
    model = Classifier((1, 8, 8), 3, channels=(8,), blocks=(0,)).eval()
    plain, other = (AbstractClassifierFeatures(model, "digits", None, units) for units in ((0.0, 1.0), (-1.0, 1.0)))
    x = samples(0, 1)
    torch.testing.assert_close(plain(x), model.features(x), rtol=0, atol=0)
    torch.testing.assert_close(other(x), model.features(2 * x - 1))
    assert plain.hash != other.hash
