import pytest
import torch

from scoregen.data import ColourViews, GreyViews
from scoregen.rng import generators


@pytest.mark.parametrize(("views", "channels"), [(GreyViews(), 1), (ColourViews(), 3)], ids=["grey", "colour"])
def test_a_view_is_a_function_of_its_own_generator_and_leaves_the_global_one_alone(views, channels):
    x = torch.rand(6, channels, 28, 28, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    whole = views(x, generators(0, 3, 0, range(6)))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    parts = [views(x[i : i + 2], generators(0, 3, 0, range(i, i + 2))) for i in (0, 2, 4)]
    assert torch.equal(torch.cat(parts), whole)
    again = views(x, generators(0, 3, 1, range(6)))
    assert (
        whole.shape == x.shape and float(whole.min()) >= 0 and float(whole.max()) <= 1 + 2**-22
    )  # rounded weights of a blur
    assert all(not torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(whole, x, strict=True))


@pytest.mark.parametrize("views", [GreyViews(), ColourViews()], ids=["grey", "colour"])
def test_images_in_other_units_are_refused_since_colours_would_be_cut(views):
    x = 2 * torch.rand(2, 3, 12, 12) - 1
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got values from -"):
        views(x, generators(0, 3, 0, range(2)))


def test_grey_views_do_not_mirror():
    r"""A bar on the left stays there: its share of the left half over 100 views is never below one half."""
    x = torch.zeros(100, 1, 28, 28)
    x[:, :, 4:24, 5:9] = 1
    left = GreyViews()(x, generators(0, 3, 0, range(100)))[..., :14].sum((1, 2, 3))
    total = GreyViews()(x, generators(0, 3, 0, range(100))).sum((1, 2, 3))
    mostly = (left > total / 2).double().mean()
    assert float(mostly) > 0.9  # a crop may start at the bar and enlarge it past the middle; mirrored: 0.5


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: GreyViews(scale=(0.0, 1.0)), "0 < least <= largest <= 1"),
        (lambda: ColourViews(scale=(0.9, 0.5)), "0 < least <= largest <= 1"),
        (lambda: ColourViews(blur=2.0), r"blur must lie in \[0, 1\], got blur=2\.0"),
    ],
    ids=["scale", "order", "blur"],
)
def test_bad_arguments_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(("views", "channels"), [(GreyViews(), 1), (ColourViews(), 3)], ids=["grey", "colour"])
def test_views_have_the_size_of_their_images(views, channels):
    for size in (28, 16):
        assert views(torch.rand(2, channels, size, size), generators(0, 3, 0, range(2))).shape[-1] == size
