import pytest
import torch

from scoregen.data import ArrayDataset
from scoregen.metrics import RandomConvolution, reference_features
from scoregen.metrics.extraction import uint8_round_trip


class Counting(RandomConvolution):
    r"""Counts the images that it has seen."""

    seen = 0

    def extract(self, images):
        self.seen += len(images)
        return super().extract(images)


def data(seed=0):
    return ArrayDataset(torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))


def test_a_second_call_reads_the_cache(tmp_path):
    extractor = Counting(1)
    first = reference_features(data(), extractor, tmp_path)
    assert extractor.seen == 20
    assert reference_features(data(), extractor, tmp_path).equal(first)
    assert extractor.seen == 20


@pytest.mark.parametrize("change", ["data", "extractor", "uint8"])
def test_whatever_changes_the_features_misses_the_cache(tmp_path, change):
    extractor = Counting(1)
    reference_features(data(), extractor, tmp_path)
    other = Counting(1, seed=1) if change == "extractor" else extractor
    reference_features(data(int(change == "data")), other, tmp_path, uint8=change != "uint8")
    assert len(list(tmp_path.iterdir())) == 2


def test_round_trip_is_applied_to_the_reference():
    x = torch.full((4, 1, 8, 8), 0.301)
    exact = RandomConvolution(1)(torch.full((4, 1, 8, 8), 77 / 255)).double()
    assert reference_features(ArrayDataset(x), RandomConvolution(1)).equal(exact)


def test_a_damaged_cache_is_written_anew(tmp_path):
    extractor = Counting(1)
    first = reference_features(data(), extractor, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert reference_features(data(), extractor, tmp_path).equal(first)
    assert extractor.seen == 40


def test_samples_that_are_not_finite_are_no_black_images():
    images = torch.zeros(5, 1, 8, 8)
    images[2, 0, 0, 0], images[3, 0, 1, 1] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="images must be finite, got 2 of 5"):
        uint8_round_trip(images)
