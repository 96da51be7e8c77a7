import pytest
import torch

from scoregen.data import Chain, Flip, Shift
from scoregen.rng import generators

IMAGES = torch.arange(40 * 12.0).reshape(40, 1, 3, 4)


def draws(indices=range(40)):
    return generators(0, 3, 0, list(indices))


def test_a_flip_mirrors_left_to_right_or_leaves_alone():
    out = Flip()(IMAGES, draws())
    flipped = (out == IMAGES.flip(-1)).flatten(1).all(1)
    assert bool((flipped | (out == IMAGES).flatten(1).all(1)).all())
    assert 8 <= int(flipped.sum()) <= 32  # Binomial(40, 1/2): missed with probability 8e-5


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


@pytest.mark.parametrize("augmentation", [Flip(), Shift(2), Chain([Flip(), Shift(1)])], ids=["flip", "shift", "chain"])
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
