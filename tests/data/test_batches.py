import pytest

from scoregen.data import Batches


def batches(rank: int = 0, world: int = 1, accumulate: int = 1, start: int = 0, stop: int = 10, seed: int = 0):
    return Batches(30, 12, accumulate, rank, world, seed, start, stop)


def joined(parts) -> list[int]:
    return [index for part in parts for index in part]


@pytest.mark.parametrize("accumulate, world", [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_ranks_and_micro_batches_partition_the_global_batch_in_its_order(accumulate, world):
    whole = list(batches())
    parts = [list(batches(rank, world, accumulate)) for rank in range(world)]
    for step, batch in enumerate(whole):
        blocks = [parts[r][step * accumulate + m] for m in range(accumulate) for r in range(world)]
        assert joined(blocks) == batch
    places = [i for m in range(accumulate) for r in range(world) for i in batches(r, world, accumulate).positions(m)]
    assert places == list(range(12))


def test_every_epoch_is_a_permutation_and_they_differ():
    stream = joined(batches())  # 10 steps of 12 are 4 epochs of 30
    epochs = [stream[e * 30 : (e + 1) * 30] for e in range(4)]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("start", [1, 4, 9])
def test_a_batch_is_a_pure_function_of_the_step(start):
    assert list(batches(start=start)) == list(batches())[start:]


def test_the_order_is_a_function_of_the_seed():
    assert list(batches(seed=1)) == list(batches(seed=1))
    assert list(batches(seed=1)) != list(batches(seed=2))


def test_a_batch_larger_than_the_data_goes_through_it_several_times():
    (batch,) = Batches(5, 12, 1, 0, 1, 0, 0, 1)
    assert sorted(batch[:5]) == sorted(batch[5:10]) == list(range(5))


def test_length_is_the_number_of_micro_batches():
    assert len(batches(accumulate=3, start=4)) == len(list(batches(accumulate=3, start=4))) == 18


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch_size=12, accumulate=5, processes=1"):
        batches(accumulate=5)
