r"""Range checks: what they let through, and their one wording."""

import math
import re

import pytest

from scoregen.checks import at_least, finite, increasing, inside, one_of, positive, whole

INF = math.inf


@pytest.mark.parametrize(
    "check, good, bad, text",
    [
        (finite, [0, -1e300], [INF, -INF, math.nan], "x must be finite, got x={}."),
        (positive, [1, 1e-300], [0, -1, INF, math.nan], "x must be > 0 and finite, got x={}."),
        (lambda x: at_least(2, x=x), [2, 3.5], [1, -INF, math.nan], "x must be >= 2, got x={}."),
        (lambda x: at_least(2, x=x), [2], [INF], "x must be >= 2 and finite, got x={}."),
        (
            lambda x: whole(1, x=x),
            [1, 5.0, 10**20],
            [0, 1.5, True, None, "3", INF],
            "x must be a whole number >= 1, got x={!r}.",
        ),
        (lambda x: inside(0, 1, x=x), [0, 0.5, 1], [-0.1, 1.1, math.nan], "x must lie in [0, 1], got x={}."),
        (lambda x: inside(0, 1, "()", x=x), [0.5], [0, 1], "x must lie in (0, 1), got x={}."),
        (lambda x: inside(0, 1, "[)", x=x), [0, 0.5], [1], "x must lie in [0, 1), got x={}."),
        (lambda x: inside(0, 1, "(]", x=x), [1, 0.5], [0], "x must lie in (0, 1], got x={}."),
    ],
    ids=["finite", "positive", "at_least", "at_least-inf", "whole", "inside", "open", "right-open", "left-open"],
)
def test_a_range_is_kept(check, good, bad, text):
    for value in good:
        check(x=value)
    for value in bad:
        with pytest.raises(ValueError, match="^" + re.escape(text.format(value)) + "$"):
            check(x=value)


def test_an_order_is_kept():
    increasing(0, low=1, high=2)
    for low, high in ((0, 1), (2, 1), (1, 1), (1, INF), (math.nan, 1)):
        text = f"low must satisfy 0 < low < high < inf, got low={low}, high={high}."
        with pytest.raises(ValueError, match="^" + re.escape(text) + "$"):
            increasing(0, low=low, high=high)


def test_a_choice_names_the_nearest():
    one_of(["edm", "eps"], kind="eps")
    with pytest.raises(ValueError, match=r"kind must be edm or eps, got kind='epss'. Did you mean 'eps'\?"):
        one_of(["edm", "eps"], kind="epss")
