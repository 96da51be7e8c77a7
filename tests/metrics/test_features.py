import pytest
import torch

from scoregen.checkpoint import contents_of, save
from scoregen.config import build
from scoregen.description import plain
from scoregen.errors import UserError
from scoregen.metrics import (
    CheckpointFeatures,
    ClassifierFeatures,
    Inception,
    Pixels,
    RandomConvolution,
    extract_features,
)
from scoregen.metrics import inception as inception_module
from scoregen.metrics.extraction import as_unit, features_at, in_order, uint8_round_trip
from scoregen.models import MLP, Classifier


def images(n=11, channels=1, size=8):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def classifier():
    torch.manual_seed(0)
    return Classifier((1, 8, 8), 10, channels=(8, 16), blocks=(0, 1))


def checkpoint(folder, model):
    r"""A checkpoint of a model trained on digits."""
    config = {"model": plain(model), "data": {"_target_": "scoregen.data.Digits"}}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return save(
        folder,
        contents_of(model, dict(model.named_parameters()), optimizer),
        config=config,
        state={"step": 1, "skipped": 0, "skipped_in_a_row": 0},
    )


EXTRACTORS = [Pixels(), RandomConvolution(1, features=16), ClassifierFeatures(classifier(), "digits")]


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda e: e.name)
@pytest.mark.parametrize("size", [1, 4, 11])
def test_batch_size_does_not_matter(extractor, size):
    x = images()
    torch.testing.assert_close(extract_features(extractor, x, size), extractor(x).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("processes", [2, 3])
def test_process_count_does_not_matter(processes):
    r"""Process r works on batches r, r + n, ... as scoregen.parallel.shard gives them."""
    extractor, x, starts = RandomConvolution(1, features=16), images(), list(range(0, 11, 2))
    parts = [features_at(extractor, x, starts[rank::processes], 2) for rank in range(processes)]
    assert in_order(parts, "random").equal(extract_features(extractor, x, 2))


def test_classifier_features_are_its_penultimate_layer():
    model = classifier()
    extractor = ClassifierFeatures(model, "digits").train()
    features = extractor(images())
    assert features.equal(model.eval().features(images()))
    assert extractor.logits(features).equal(model(images()))
    assert (extractor.frechet_name, extractor.kernel_name) == ("FD-digits", "KD-digits")


def test_random_features_are_the_same_on_every_machine():
    r"""Weights come from keyed draws on the CPU, never from the global generator."""
    assert RandomConvolution(3).hash == RandomConvolution(3).hash
    assert RandomConvolution(3).hash != RandomConvolution(3, seed=1).hash


def test_hash_changes_with_weights_and_resize_only():
    model = classifier()
    extractor = ClassifierFeatures(model, "digits")
    before = extractor.hash
    assert ClassifierFeatures(model, "another name").hash == before
    assert ClassifierFeatures(model, "digits", resize=8).hash != before
    with torch.no_grad():
        model.head.bias[0] += 1e-6
    assert extractor.hash != before


def test_resize_gives_the_side_and_keeps_constants():
    found = Pixels(resize=4)(torch.full((2, 1, 8, 8), 0.25))
    torch.testing.assert_close(found, torch.full((2, 16), 0.25))


def test_uint8_round_trip_rounds_to_the_nearest_level():
    x = torch.tensor([-0.3, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 7.0])
    assert uint8_round_trip(x).tolist() == [0, 0, 0, 1, 255, 255]
    assert uint8_round_trip(as_unit(torch.arange(256, dtype=torch.uint8))).tolist() == list(range(256))


def test_inception_without_weights_says_how_to_get_them(tmp_path):
    with pytest.raises(ValueError, match=r"features\.weights=PATH, or use features=classifier"):
        Inception(tmp_path / "missing.pth")


def test_inception_refuses_a_file_that_could_run_code(tmp_path):
    import pickle

    (tmp_path / "weights.pth").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(ValueError, match="must be a file of tensors"):
        Inception(tmp_path / "weights.pth")


def test_only_the_published_inception_weights_make_a_fid(tmp_path, monkeypatch):
    r"""Other weights are called FD-inception; grey images become three equal uint8 channels."""

    class Channels(torch.nn.Module):
        def forward(self, x):
            assert x.dtype == torch.uint8
            return (x.float().mean((2, 3)),)

    monkeypatch.setattr(inception_module, "_inception_network", lambda path: Channels())
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
    extractor = Inception(tmp_path / "weights.pth")
    assert (extractor.frechet_name, extractor.kernel_name) == ("FD-inception", "KD-inception")
    assert extractor(torch.full((1, 1, 8, 8), 0.2)).tolist() == [[51.0, 51.0, 51.0]]
    monkeypatch.setattr(inception_module, "INCEPTION_FILE", f"weights-{_sha256(tmp_path / 'weights.pth')[:8]}.pth")
    extractor = Inception(tmp_path / "weights.pth")
    assert (extractor.frechet_name, extractor.kernel_name) == ("FID", "KID")


def _sha256(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("x", [torch.zeros(2, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)], ids=["3d", "uint8"])
def test_other_images_are_refused(x):
    with pytest.raises(ValueError, match=r"floating point of shape \(B, C, H, W\)"):
        Pixels()(x)


def test_features_of_a_checkpoint_are_those_of_its_classifier_under_the_name_of_its_data(tmp_path):
    found = CheckpointFeatures(checkpoint(tmp_path / "step_00000001", classifier()))
    assert found.frechet_name == "FD-digits"
    assert torch.equal(found(images()), ClassifierFeatures(classifier(), "digits")(images()))
    other = checkpoint(tmp_path / "step_00000002", MLP((2,)))
    with pytest.raises(UserError, match="must hold a classifier, got a MLP"):
        CheckpointFeatures(other)


def test_an_extractor_is_described_by_its_arguments(tmp_path):
    folder = checkpoint(tmp_path / "step_00000001", classifier())
    for extractor in (Pixels(resize=4), RandomConvolution(1, 16, seed=3), CheckpointFeatures(folder, weights="model")):
        again = build(plain(extractor))
        assert type(again) is type(extractor) and again.hash == extractor.hash
