r"""Draws are functions of their keys; work over processes is a partition."""

import itertools

import pytest
import torch

from scoregen import parallel
from scoregen.keys import derive_seed
from scoregen.progress import progress
from scoregen.rng import Stream, generator, generators, rand, randn, random_signs, seed_all


def test_the_hash_is_splitmix64():
    r"""The first outputs of SplitMix64 from state 0 (Steele, Lea, Flood; listed with the reference implementation)."""
    assert derive_seed() == 0x9E3779B97F4A7C15
    # one round on the state (golden gamma xor key) + golden gamma; key = golden gamma gives the state 0
    assert derive_seed(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_seeds_of_neighbouring_keys_are_distinct_and_order_matters():
    seeds = {derive_seed(*keys) for n in (1, 2, 3) for keys in itertools.product(range(12), repeat=n)}
    assert len(seeds) == 12 + 12**2 + 12**3
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert derive_seed(-1) != derive_seed(1)


@pytest.mark.parametrize("bit", [0, 1, 17, 40, 63])
def test_a_flipped_bit_of_a_key_flips_half_of_the_seed(bit):
    flips = [bin(derive_seed(3, k) ^ derive_seed(3, k ^ 1 << bit)).count("1") for k in range(200)]
    assert sum(flips) / 200 == pytest.approx(32, abs=5 * 4 / 200**0.5)  # Binomial(64, 1/2); false alarm 6e-7


@pytest.mark.parametrize("draw", [randn, rand], ids=["normal", "uniform"])
def test_a_sample_does_not_depend_on_its_batch(draw):
    whole = draw((10, 2, 3), generators(5, 1, 7, range(10)))
    parts = torch.cat([draw((len(r), 2, 3), generators(5, 1, 7, r)) for r in (range(0, 4), range(4, 5), range(5, 10))])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, draw((10, 2, 3), generators(5, 1, 8, range(10))))


def test_moments_over_keys_are_those_of_the_law():
    normal, uniform = (f((4000,), generators(0, 1, 0, range(4000)), torch.float64) for f in (randn, rand))
    assert abs(normal.mean()) < 5 / 4000**0.5 and abs(normal.var() - 1) < 5 * (2 / 4000) ** 0.5
    assert abs(uniform.mean() - 0.5) < 5 / (12 * 4000) ** 0.5
    assert uniform.min() >= 0 and uniform.max() < 1
    lagged = (normal[1:] * normal[:-1]).mean()
    assert abs(lagged) < 5 / 4000**0.5


def test_one_generator_serves_the_batch_and_none_the_global_one():
    assert torch.equal(randn((3, 2), generator(1)), torch.randn(3, 2, generator=generator(1)))
    torch.manual_seed(3)
    first = randn((3, 2))
    torch.manual_seed(3)
    assert torch.equal(first, torch.randn(3, 2))


def test_dtype_and_shape_are_as_asked():
    assert randn((2, 0, 3), generators(0, 1, 0, range(2)), torch.float64).shape == (2, 0, 3)
    assert rand((2,), generators(0, 1, 0, range(2)), torch.float64).dtype == torch.float64


def test_a_list_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a list of 2 for a batch of 3; pass 3 generators"):
        randn((3, 2), generators(0, 1, 0, range(2)))


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shards_are_a_partition(monkeypatch, world):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    parts = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        assert (parallel.rank(), parallel.world_size()) == (rank, world)
        parts.append(parallel.shard(range(7)))
    assert sorted(index for part in parts for index in part) == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_a_launcher_everything_is_the_identity():
    parallel.initialize()
    parallel.barrier()
    assert parallel.gather({"a": 1}) == [{"a": 1}]
    assert parallel.shard([3, 1, 2]) == [3, 1, 2]


def test_a_bar_is_silent_where_standard_error_is_no_terminal(capsys):
    assert list(progress(range(3), description="d")) == [0, 1, 2]
    bar = progress(total=5, initial=2)
    bar.update(3)
    bar.close()
    assert capsys.readouterr().err == ""


def test_a_bar_shows_on_a_terminal_of_the_first_process_only(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    list(progress(range(3), description="work"))
    assert "work" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    list(progress(range(3), description="work"))
    assert capsys.readouterr().err == ""


def test_signs_have_the_type_of_draws():
    signs = random_signs((1000,), torch.Generator().manual_seed(0))
    assert signs.dtype == torch.float32 and set(signs.tolist()) == {-1.0, 1.0}
    assert random_signs((2,), None, torch.float64).dtype == torch.float64


def test_streams_differ():
    values = [int(stream) for stream in Stream]
    assert len(set(values)) == len(values) == len(Stream.__members__)  # an alias would be missing from the first


def test_generators_on_the_cpu_keep_all_bits_of_a_seed():
    r"""torch keeps the lower 32 of the 64 bits of `manual_seed`; two keys that share them draw the same there."""
    lower: dict[int, int] = {}
    for key in range(200_000):  # 4.7 pairs are expected among 2^32, and none with probability 1 %
        lower.setdefault(derive_seed(key) & 0xFFFFFFFF, key)
        if lower[derive_seed(key) & 0xFFFFFFFF] != key:
            break
    else:
        pytest.fail("no two of the keys share their lower 32 bits")
    first, second = lower[derive_seed(key) & 0xFFFFFFFF], key
    by_torch = [torch.randn(4, generator=torch.Generator().manual_seed(derive_seed(k))) for k in (first, second)]
    assert torch.equal(*by_torch)
    assert not torch.equal(torch.randn(4, generator=generator(first)), torch.randn(4, generator=generator(second)))


def test_a_generator_names_its_seed_and_is_well_mixed():
    assert generator(3, 4).initial_seed() == derive_seed(3, 4)
    words = torch.stack([torch.randint(2**32, (1000,), generator=generator(k)) for k in range(64)])
    ones = torch.stack([(words >> bit & 1).double().mean() for bit in range(32)])
    assert (ones - 0.5).abs().max() < 6 * 0.5 / 64_000**0.5  # 32 tests, false alarm 6e-8


def test_all_global_generators_are_seeded_by_all_keys():
    seed_all(1, 2)
    assert torch.equal(torch.randn(5), torch.randn(5, generator=generator(1, 2)))
