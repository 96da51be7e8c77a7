import math

import pytest

from scoregen.training import Constant, Cosine, InverseSqrt

STEPS = 100
FORMS = {
    "constant": (Constant(), lambda k: 1.0),
    "cosine": (Cosine(final=0.1), lambda k: 0.55 + 0.45 * math.cos(math.pi * k / STEPS)),
    "inverse_sqrt": (InverseSqrt(reference=25), lambda k: 1.0 if k <= 25 else 5 / math.sqrt(k)),
}


@pytest.mark.parametrize("name", FORMS)
def test_factor_is_its_closed_form_in_any_order_of_calls(name):
    schedule, form = FORMS[name]
    for k in (99, 0, 50, 26, 25, 7, 99):
        assert schedule(k, STEPS) == pytest.approx(form(k), rel=1e-14)


@pytest.mark.parametrize("kind", [Constant, Cosine, InverseSqrt])
def test_warmup_rises_linearly_to_the_schedule(kind):
    plain, warm = kind(), kind(warmup=10)
    for k in range(10):
        assert warm(k, STEPS) == pytest.approx((k + 1) / 10 * plain(k, STEPS), rel=1e-14)
    assert warm(10, STEPS) == plain(10, STEPS)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Constant(warmup=-1), "warmup must be >= 0, got warmup=-1"),
        (lambda: Cosine(final=1.5), r"final must lie in \[0, 1\], got final=1.5"),
        (lambda: InverseSqrt(reference=0), "reference must be >= 1, got reference=0"),
    ],
)
def test_values_out_of_range_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
