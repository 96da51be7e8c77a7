r"""The contract of augmentations, and stated ranges; the law of sources is in tests/laws."""

import inspect

import numpy as np
import pytest
import torch

from scoregen import data
from scoregen.data import ArrayDataset, Augmentation, Npz, Source
from scoregen.rng import generator

CONCRETE = [kind for kind in (getattr(data, name) for name in data.__all__) if not inspect.isabstract(kind)]
AUGMENTATIONS = [kind for kind in CONCRETE if issubclass(kind, Augmentation)]
AUGMENTED = {
    data.Shift: {"pixels": 3},
    data.Crop: {"padding": 3, "border": "fill", "fill": 0.5},
    data.Chain: {"steps": [data.Flip()]},
    data.InstanceNoise: {"sigma": 0.1},
    data.Transforms: {"steps": ["RandomInvert", {"RandomRotation": {"degrees": 5}}], "range": (0, 2)},
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
        (np.full((9, 5), 0.7), None),
    ],
    ids=["bytes", "floats", "vectors"],
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
