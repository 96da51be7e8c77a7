r"""The contract of sources and augmentations: stated ranges hold, and what they were built with can be read back."""

import inspect
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import image_folder, mnist_like

from scoregen import data
from scoregen.data import ArrayDataset, Augmentation, Npz, Source
from scoregen.rng import generator

CONCRETE = [kind for kind in (getattr(data, name) for name in data.__all__) if not inspect.isabstract(kind)]
SOURCES = [kind for kind in CONCRETE if issubclass(kind, Source)]
AUGMENTATIONS = [kind for kind in CONCRETE if issubclass(kind, Augmentation)]
RANGES = {data.Toy2D: None, data.BreastCancer: (0.0, math.inf), data.Wine: (0.0, math.inf)}  # images: (0, 1)


def arguments(kind, folder):
    r"""Arguments of a source, none of them a default where there is a choice; its files are made."""
    flip = {"augmentation": data.Flip()}
    if kind is data.Npz:
        np.savez(folder / "a.npz", train_images=np.zeros((9, 4, 4), np.uint8))
        return {"path": str(folder / "a.npz"), **flip}
    if kind is data.Folder:
        return {"path": str(image_folder(folder)), "size": 3, **flip}
    if kind is data.CaptionedFolder:
        for k in range(2):
            Image.new("L", (6, 4), 51 * k).save(folder / f"{k}.png")
        rows = [json.dumps({"file_name": f"{k}.png", "text": str(k)}) for k in range(2)]
        (folder / "metadata.jsonl").write_text("\n".join(rows))
        return {"path": str(folder), "size": 3, **flip}
    if kind is data.CIFAR10:
        images, labels = np.zeros((9, 8, 8, 3), np.uint8), np.arange(9)
        np.savez(folder / "cifar10_subset.npz", train_images=images, train_labels=labels)
        return {"root": str(folder), "download": False, "validation": 2, **flip}
    if kind in (data.MNIST, data.FashionMNIST, data.KMNIST):
        mnist_like(folder, kind.__name__)
        return {"root": str(folder), "download": False, "validation": 2, **flip}
    return {data.Digits: flip, data.Toy2D: {"n": 100, "noise": 0.1, "seed": 3}}.get(kind, {"seed": 3})


@pytest.mark.parametrize("kind", SOURCES, ids=lambda kind: kind.__name__)
def test_a_source_keeps_to_its_contract(tmp_path, kind):
    given = arguments(kind, tmp_path)
    assert set(given) == set(inspect.signature(kind).parameters)
    source = kind(**given)
    assert {name: getattr(source, name) for name in given} == given
    assert source.range == RANGES.get(kind, (0.0, 1.0))
    low, high = source.range or (-math.inf, math.inf)
    for part in (source.train, source.test):
        x, label = part[:]
        assert x.dtype == torch.float32 and x.shape == (len(part), *source.shape)
        assert float(x.min()) >= low and float(x.max()) <= high
        assert source.num_classes is None or int(label.max()) < source.num_classes
        assert len(part.x) == len(part) and len(part.fingerprint()) == 16
    assert isinstance(source.name, str)


AUGMENTED = {
    data.Shift: {"pixels": 3},
    data.Chain: {"steps": [data.Flip()]},
    data.GreyViews: {"scale": (0.6, 0.9), "degrees": 5.0},
    data.ColourViews: {"scale": (0.6, 0.9), "blur": 0.2, "solarize": 0.3},
}


@pytest.mark.parametrize("kind", AUGMENTATIONS, ids=lambda kind: kind.__name__)
def test_an_augmentation_keeps_its_arguments(kind):
    given = AUGMENTED.get(kind, {})
    assert set(given) == (set() if kind.__init__ is object.__init__ else set(inspect.signature(kind).parameters))
    built = kind(**given)
    assert {name: getattr(built, name) for name in given} == given
    x = torch.rand(2, 3, 8, 8, generator=generator(0))
    assert built(x, generator(1)).shape == x.shape


@pytest.mark.parametrize(
    "images, expected",
    [
        (np.full((9, 4, 4), 255, np.uint8), (0.0, 1.0)),
        (np.full((9, 4, 4, 3), 0.7), (0.0, 1.0)),
        (np.full((9, 4, 4), 1.1), None),
        (np.full((9, 4, 4), -0.1), None),
        (np.full((9, 5), 0.7), None),
    ],
    ids=["bytes", "floats", "above", "below", "vectors"],
)
def test_the_range_of_an_archive_is_that_of_its_images(tmp_path, images, expected):
    np.savez(tmp_path / "a.npz", images=images)
    assert Npz(str(tmp_path / "a.npz")).range == expected


def test_a_source_that_states_no_range_is_refused():
    class Silent(Source):
        name = "silent"

        def load(self, train):
            return ArrayDataset(torch.zeros(2, 1))

    with pytest.raises(TypeError, match=r"abstract.*range"):
        Silent()
