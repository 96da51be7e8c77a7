r"""Where channels are: told by the shape where that is certain, asked for otherwise."""

import numpy as np
import pytest

from scoregen.data import Npz
from scoregen.errors import UserError

TOLD = {
    (16, 16, 2): (2, 16, 16),
    (16, 16, 8): (8, 16, 16),
    (16, 16, 5): (5, 16, 16),
    (16, 16, 3): (3, 16, 16),
    (3, 16, 16): (3, 16, 16),
    (8, 16, 16): (8, 16, 16),
    (8, 32, 20): (8, 32, 20),
    (20, 32, 8): (8, 20, 32),
    (4, 4, 3): (3, 4, 4),
    (1, 4, 4): (1, 4, 4),
    (4, 32, 8): (4, 32, 8),
    (16, 20): (1, 16, 20),
    (7,): (7,),
}
ASKED = [(3, 16, 3), (4, 32, 1), (1, 32, 4), (16, 16, 16), (3, 16, 2), (20, 16, 20), (8, 4, 8)]


def npz(folder, sample, **options):
    x = np.arange(20 * np.prod(sample), dtype=np.uint32).reshape(20, *sample).astype(np.uint8)
    np.savez(folder / "a.npz", images=x)
    return x, Npz(str(folder / "a.npz"), test="none", **options)


@pytest.mark.parametrize("sample, shape", TOLD.items(), ids=str)
def test_the_shape_tells_the_channels(tmp_path, sample, shape):
    x, source = npz(tmp_path, sample)
    assert source.shape == shape
    expected = np.moveaxis(x, -1, 1) if len(sample) == 3 and shape != sample else x.reshape(20, *shape)
    assert np.array_equal(source.train[:][0].numpy(), expected)


@pytest.mark.parametrize("sample", ASKED, ids=str)
def test_an_ambiguous_shape_is_asked_for_and_taken_as_stated(tmp_path, sample):
    a, b, c = sample
    text = rf"Give data.layout=channels_last \({c} channels of {a} x {b}\) or data.layout=channels_first"
    with pytest.raises(UserError, match=text):
        npz(tmp_path, sample)
    x, last = npz(tmp_path, sample, layout="channels_last")
    assert last.shape == (c, a, b) and np.array_equal(last.train[:][0].numpy(), np.moveaxis(x, -1, 1))
    x, first = npz(tmp_path, sample, layout="channels_first")
    assert first.shape == sample and np.array_equal(first.train[:][0].numpy(), x)


def test_a_stated_layout_wins_over_the_shape(tmp_path):
    x, source = npz(tmp_path, (16, 16, 3), layout="channels_first")
    assert source.shape == (16, 16, 3) and np.array_equal(source.train[:][0].numpy(), x)


@pytest.mark.parametrize("sample", [(16, 20), (7,)], ids=str)
def test_a_layout_of_what_has_no_channels_is_refused(tmp_path, sample):
    with pytest.raises(UserError, match=r"data.layout: .* without channels. Leave data.layout out"):
        npz(tmp_path, sample, layout="channels_last")


def test_other_words_and_more_axes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"data.layout: must be channels_last or channels_first, got last"):
        npz(tmp_path, (16, 16, 3), layout="last")
    with pytest.raises(UserError, match=r"must be \(H, W\), .* got \(4, 5, 6, 7\)"):
        npz(tmp_path, (4, 5, 6, 7))
