import numpy as np
import pytest
import torch

from scoregen.data import Chain, Crop, Flip, InstanceNoise, Shift
from scoregen.data.augment import _gathered, _sliced
from scoregen.rng import generators

IMAGES = torch.arange(40 * 12.0).reshape(40, 1, 3, 4)


def draws(indices=range(40)):
    return generators(0, 3, 0, list(indices))


def test_a_flip_mirrors_left_to_right_or_leaves_alone():
    out = Flip()(IMAGES, draws())
    flipped = (out == IMAGES.flip(-1)).flatten(1).all(1)
    assert bool((flipped | (out == IMAGES).flatten(1).all(1)).all())
    assert 8 <= int(flipped.sum()) <= 32  # Binomial(40, 1/2): missed with probability 8e-5


def test_the_columns_of_a_table_are_not_mirrored():
    with pytest.raises(ValueError, match=r"must be images \(B, C, H, W\) to be mirrored, got \(6, 3\)"):
        Flip()(torch.rand(6, 3), draws())


def test_a_shift_repeats_the_border_and_reaches_every_displacement():
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    seen = set()
    for out in Shift(1)(image.expand(200, 1, 3, 4), generators(0, 3, 0, range(200))):
        matches = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if torch.equal(out[0], moved(image[0, 0], r, c))]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 9


def moved(image: torch.Tensor, r: int, c: int) -> torch.Tensor:
    rows, columns = ((torch.arange(n) + d).clamp(0, n - 1) for n, d in zip(image.shape, (r, c), strict=True))
    return image[rows][:, columns]


@pytest.mark.parametrize(
    ("crop", "pad"),
    [
        (Crop(1), {"mode": "reflect"}),
        (Crop(1, "repeat"), {"mode": "edge"}),
        (Crop(1, "fill", -1.0), {"constant_values": -1}),
    ],
    ids=["reflect", "repeat", "fill"],
)
def test_a_crop_is_a_window_of_the_image_with_its_border_at_every_place(crop, pad):
    padded = torch.from_numpy(np.pad(IMAGES[0, 0].numpy(), 1, **pad))
    windows = [padded[r : r + 3, c : c + 4] for r in range(3) for c in range(3)]
    seen = set()
    for out in crop(IMAGES[:1].expand(200, 1, 3, 4), generators(0, 3, 0, range(200))):
        seen.add(next(k for k, window in enumerate(windows) if torch.equal(out[0], window)))
    assert len(seen) == 9  # one of 9 is missed by 200 draws with probability 6e-10


def test_a_window_is_the_same_on_every_device():
    places = torch.randint(0, 3, (40, 2), generator=torch.Generator().manual_seed(0))
    whole = torch.arange(40 * 2 * 30.0).reshape(40, 2, 5, 6)
    shape = torch.Size((40, 2, 3, 4))
    assert torch.equal(_gathered(whole, places, shape), _sliced(whole, places, shape))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Crop(0), "padding must be a whole number >= 1, got padding=0"),
        (lambda: Crop(2, "mirror"), "border must be reflect, repeat or fill"),
        (lambda: Crop(2, "fill"), "fill must be given with border='fill'"),
        (lambda: Crop(2, fill=0.0), "fill must be given with border='fill'"),
        (lambda: Crop(3)(IMAGES, draws()), r"padding must be below the sides of the images, \(3, 4\)"),
    ],
)
def test_bad_crops_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(
    "augmentation",
    [Flip(), Shift(2), Crop(2), Chain([Flip(), Shift(1)])],
    ids=["flip", "shift", "crop", "chain"],
)
def test_a_sample_is_augmented_by_its_own_generator_whatever_the_batch(augmentation):
    whole = augmentation(IMAGES, draws())
    parts = [augmentation(IMAGES[i : i + 7], draws(range(i, min(i + 7, 40)))) for i in range(0, 40, 7)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_chain_applies_in_order():
    class Double(Flip):
        def __call__(self, x, generator):
            return 2 * x

    class Increment(Flip):
        def __call__(self, x, generator):
            return x + 1

    assert torch.equal(Chain([Double(), Increment()])(IMAGES, None), 2 * IMAGES + 1)


def test_a_shift_of_nothing_is_refused():
    with pytest.raises(ValueError, match="pixels must be a whole number >= 1, got pixels=0"):
        Shift(0)


def test_instance_noise_has_the_stated_deviation_and_is_each_samples_own():
    x = torch.zeros(400, 1, 8, 8, dtype=torch.float64)
    noise = InstanceNoise(0.2)(x, generators(0, 3, 0, range(400)))
    assert float(noise.var()) == pytest.approx(0.04, rel=3 * (2 / noise.numel()) ** 0.5)
    order = [7, 3, 399]
    torch.testing.assert_close(InstanceNoise(0.2)(x[order], generators(0, 3, 0, order)), noise[order], rtol=0, atol=0)
    with pytest.raises(ValueError, match="sigma must be > 0"):
        InstanceNoise(0.0)
