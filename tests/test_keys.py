r"""Draws as hashes of keys: their law, their independence, and that nothing but the keys enters."""

import pytest
import torch
from scipy import stats

from scoregen.keys import Keys, derive_seed
from scoregen.rng import Stream, rand, randn, random_signs

FALSE_ALARM = 1e-6  # of each test of a law


def keys(n: int, step: int = 0, stream: int = Stream.NOISE, seed: int = 0) -> Keys:
    return Keys(seed, stream, step, range(n))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("draw", "law"), [(randn, "norm"), (rand, "uniform")], ids=["normal", "uniform"])
def test_draws_have_their_law_along_a_sample_and_across_samples(draw, law, dtype):
    x = draw((500, 501), keys(500), dtype).double()
    for part in (
        x.flatten(),
        x[3],
        x[:, 4],
        x[:, 500],
        torch.cat([draw((1, 3), keys(1, k), dtype)[0] for k in range(400)]),
    ):
        assert stats.kstest(part.double().numpy(), law).pvalue > FALSE_ALARM


@pytest.mark.parametrize("other", ["sample", "place", "step", "stream", "seed", "draw"])
def test_draws_of_other_keys_are_independent(other):
    r"""Correlations of 10^5 pairs, and of their squares, at z sqrt(n); false alarm 1e-6 each."""
    n = 100_000
    first = keys(2).randn((2, n), torch.float64, "cpu")
    again = keys(2)
    again.randn((2, n), torch.float64, "cpu")
    second = {
        "sample": first[1],
        "place": first[0].roll(1),
        "step": keys(1, step=1).randn((1, n), torch.float64, "cpu")[0],
        "stream": keys(1, stream=Stream.AUGMENTATION).randn((1, n), torch.float64, "cpu")[0],
        "seed": keys(1, seed=1).randn((1, n), torch.float64, "cpu")[0],
        "draw": again.randn((2, n), torch.float64, "cpu")[0],
    }[other]
    assert abs((first[0] * second).mean()) < 4.9 / n**0.5
    squares = (first[0].square() - 1) * (second.square() - 1)
    assert abs(squares.mean()) < 4.9 * 2 / n**0.5


def test_the_two_normals_of_one_number_are_independent():
    x = keys(1).randn((1, 200_000), torch.float64, "cpu")[0]
    a, b = x[:100_000], x[100_000:]
    assert abs((a * b).mean()) < 4.9 / 1e5**0.5
    assert stats.kstest((a.square() + b.square()).numpy(), stats.chi2(2).cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize("size", [1, 2, 7, 784, 5001, 70_001])
@pytest.mark.parametrize("draw", [randn, rand], ids=["normal", "uniform"])
def test_the_cut_of_a_batch_changes_no_bit(draw, size):
    cuts = [range(0, 1), range(1, 4), range(4, 11)]
    for dtype in (torch.float32, torch.float64):
        whole = draw((11, size), Keys(5, 1, 7, range(11)), dtype)
        assert torch.equal(whole, torch.cat([draw((len(r), size), Keys(5, 1, 7, r), dtype) for r in cuts]))


def test_the_number_of_threads_changes_no_bit():
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(randn((9, 30_001), keys(9)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_the_key_of_a_sample_is_the_hash_of_its_integers():
    r"""So integers on the device (bits of an input) serve like places that follow one another."""
    found = Keys(3, 4, 5, range(2, 6))._next((4,), "cpu").tolist()
    assert [k % 2**64 for k in found] == [derive_seed(3, 4, 5, 0, place) for place in range(2, 6)]
    places = torch.tensor([5, 2])
    assert torch.equal(rand((2, 3), Keys(3, 4, 5, places)), rand((4, 3), Keys(3, 4, 5, range(2, 6)))[[3, 0]])


def test_draws_follow_one_another_and_a_copy_repeats_them():
    first = keys(3)
    a = randn((3, 2), first)
    twin = first.copy()
    b = randn((3, 2), first)
    assert not torch.equal(a, b)
    assert torch.equal(b, randn((3, 2), twin))


def test_places_are_asked_for_at_the_first_draw():
    asked = []
    late = Keys(0, 1, 2, lambda: asked.append(1) or torch.arange(3))
    assert not asked
    assert torch.equal(randn((3, 2), late), randn((3, 2), keys(3, step=2)))
    assert torch.equal(rand((3, 2), late), keys_after_one_draw().rand((3, 2), torch.float32, "cpu"))
    assert asked == [1]


def keys_after_one_draw() -> Keys:
    found = keys(3, step=2)
    found.randn((3, 2), torch.float32, "cpu")
    return found


def test_draws_in_float32_are_those_in_float64_nearly():
    r"""2^-24 in v near 1 is sqrt(2 2^-24) in the radius where it is smallest, 3.5e-4."""
    a, b = (randn((100, 1000), keys(100), dtype) for dtype in (torch.float32, torch.float64))
    assert (a - b).abs().max() < 3.5e-4 and (a - b).square().mean().sqrt() < 1e-6
    a, b = (rand((100, 1000), keys(100), dtype) for dtype in (torch.float32, torch.float64))
    assert (a.double() - b).abs().max() <= 2.0**-24 and b.min() >= 0 and a.max() < 1


def test_types_shapes_and_signs():
    assert randn((2, 0, 3), keys(2), torch.float64).shape == (2, 0, 3)
    assert randn((2,), keys(2), torch.bfloat16).dtype == torch.bfloat16
    assert set(random_signs((1000,), keys(1000)).tolist()) == {-1.0, 1.0}


def test_another_number_of_keys_is_refused():
    with pytest.raises(ValueError, match="got 2 keys for a batch of 3"):
        randn((3, 2), keys(2))
    with pytest.raises(ValueError, match=r"places must follow one another, got range\(0, 6, 2\)"):
        Keys(0, 1, 2, range(0, 6, 2))
