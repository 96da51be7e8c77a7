r"""Classifiers that are no function of one input are refused, before, during or after the run; honest ones pass."""

import pytest
import torch
from torch import nn

from scoregen.rng import Stream
from scoregen.smoothing import Gaussian, SmoothedClassifier
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.dataset import certify_dataset
from scoregen.smoothing.engine import Request
from scoregen.smoothing.guard import differ, rounding_of
from scoregen.smoothing.spots import Spot, Spots, rows

BATCH = "changed with the other inputs in the batch"
INPUTS = torch.cat((torch.full((8, 4), 2.0), torch.full((8, 4), 0.3), torch.full((8, 4), -0.1)))


def seeded():
    r"""The chunks that are counted again depend on the seed."""
    return torch.Generator().manual_seed(0)


def margin(value):
    return torch.stack((value, -value), 1)


def honest(y):
    return margin(y.sum(1))


def statistics_from(rows):
    r"""The mean of the batch is taken away, in batches of so many rows or more."""
    return lambda y: margin((y - y.mean(0) if len(y) >= rows else y).sum(1))


def majority(y):
    r"""Every row is given the answer of most rows."""
    return margin(y.sum(1).sign().sum().sign().expand(len(y)))


def few_outvoted(y):
    r"""Only rows of a small minority are given the answer of the others; all others keep their own."""
    own = y.sum(1).sign()
    most = own.sum().sign()
    rare = (own != most) & ((own != most).float().mean() < 0.2)
    return margin(torch.where(rare, most, own))


def offset_batch(y):
    return statistics_from(17)(y) + 1e6


def masked_batch(y):
    logits = statistics_from(17)(y)
    return torch.cat((logits, torch.full((len(y), 1), -torch.inf)), 1)


class Turning(nn.Module):
    r"""Answers as asked for some calls, then always class 0: an accumulated state."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def forward(self, y):
        self.left -= 1
        return honest(y) if self.left >= 0 else margin(torch.ones(len(y)))


CHEATS = {
    "statistics of 17 rows or more": statistics_from(17),
    "statistics of 32 rows or more": statistics_from(32),
    "statistics of 128 rows or more": statistics_from(128),
    "the majority of the batch": majority,
    "a minority is outvoted": few_outvoted,
    "an offset of 1e6": offset_batch,
    "a masked class": masked_batch,
    "neighbour in the batch": lambda y: margin(y.roll(1, 0).sum(1)),
    "place in the batch": lambda y: margin(y.sum(1) + 0.5 * (torch.arange(len(y)) % 2)),
}


@pytest.mark.parametrize("name", CHEATS)
@pytest.mark.parametrize("first", [0, 8], ids=["the first input is easy", "the first input is hard"])
def test_a_classifier_that_looks_at_its_batch_is_refused(name, first):
    classes = 3 if "masked" in name else 2
    x = INPUTS.roll(-first, 0)
    with pytest.raises(ValueError, match=BATCH):
        SmoothedClassifier(CHEATS[name], Gaussian(0.5), classes).certify(x, n=200, method="fixed", generator=seeded())


@pytest.mark.parametrize("name", ["statistics of 17 rows or more", "an offset of 1e6", "neighbour in the batch"])
def test_one_input_is_enough_to_find_it(name):
    with pytest.raises(ValueError, match=BATCH):
        SmoothedClassifier(CHEATS[name], Gaussian(0.5), 2).certify(
            INPUTS[8:9], n=200, method="fixed", generator=seeded()
        )


@pytest.mark.parametrize("share", [0.6, 0.9], ids=["during the run", "near its end"])
def test_a_state_that_turns_is_found_after_the_run(share):
    def certified(calls):
        classifier = Turning(calls).eval()
        SmoothedClassifier(classifier, Gaussian(0.5), 2).certify(INPUTS, n=200, method="fixed", generator=seeded())
        return classifier

    calls = 10_000 - certified(10_000).left
    with pytest.raises(ValueError, match="the inputs of the beginning were answered in another way"):
        certified(int(share * calls))


class Between(nn.Module):
    r"""Always class 0 in some calls, and honest before and after them."""

    def __init__(self, first, last):
        super().__init__()
        self.first, self.last, self.calls = first, last, 0

    def forward(self, y):
        self.calls += 1
        return margin(torch.ones(len(y))) if self.first <= self.calls < self.last else honest(y)


ASKED = {
    "certify": lambda g: g.certify(INPUTS, n=200, method="fixed", generator=seeded()),
    "predict": lambda g: g.predict(INPUTS, n=400, method="fixed", generator=seeded()),
    "explain": lambda g: g.explain(INPUTS[::8], n=2000, generator=seeded()),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_state_that_turns_back_is_found_too(asked):
    r"""Draws of the run itself are asked about again at its end."""
    with pytest.raises(ValueError, match="answered in another way when they were asked about again"):
        ASKED[asked](SmoothedClassifier(Between(60, 85).eval(), Gaussian(0.5), 2))


def test_easy_inputs_in_the_middle_do_not_hide_a_majority():
    r"""Copies of several inputs are asked about alone, those of one easy input would agree with any majority."""
    x = torch.stack([INPUTS[i] for i in (0, 16, 8, 17, 1, 18, 9, 19, 2)])
    with pytest.raises(ValueError, match=BATCH):
        SmoothedClassifier(majority, Gaussian(0.5), 2).certify(x, n=200, method="fixed", generator=seeded())


def huge_margins(y):
    r"""The batch moves each row by less than a hundredth of the usual margin, and by more than that of few rows."""
    own = y.sum(1)
    return margin(torch.where(own.abs() > 3.5, 1e3 * own.sign(), 0.5 * own.sign()) + own.sign().mean().sign())


def test_margins_of_other_inputs_excuse_no_answer_that_changes():
    x = torch.cat((INPUTS[:8], -INPUTS[:8], INPUTS[8:11]))
    with pytest.raises(ValueError, match="so that its counts prove nothing"):
        SmoothedClassifier(huge_margins, Gaussian(0.5), 2).certify(x, n=200, method="fixed", generator=seeded())


class InPlace(nn.Module):
    def forward(self, y):
        return margin(y.mul_(2).sum(1) / 2)


class SameTensor(nn.Module):
    r"""Returns one tensor from call to call, as a captured graph does."""

    def __init__(self):
        super().__init__()
        self.out = torch.zeros(512, 2)

    def forward(self, y):
        return self.out[: len(y)].copy_(honest(y))


@pytest.mark.parametrize("kind", [InPlace, SameTensor])
def test_a_function_that_reuses_memory_is_honest(kind):
    g, expected = (SmoothedClassifier(f, Gaussian(0.5), 2) for f in (kind().eval(), honest))
    found = [one.certify(INPUTS[::8], n=200, method="fixed", generator=seeded()) for one in (g, expected)]
    assert found[0] == found[1]


def test_another_noise_is_not_counted_with_the_first():
    g = SmoothedClassifier(honest, Gaussian(0.5), 2)
    g.certify(INPUTS[8:9], n=200, method="fixed", generator=seeded())
    g.noise = Gaussian(2.0)
    fresh = SmoothedClassifier(honest, Gaussian(2.0), 2).certify(INPUTS[8:9], n=200, method="fixed", generator=seeded())
    assert g.certify(INPUTS[8:9], n=200, method="fixed", generator=seeded()) == fresh


def test_what_the_probes_do_not_see_is_found_in_the_run():
    r"""A classifier that looks at its batch only between the questions before the run and those after it."""

    class Meanwhile(nn.Module):
        calls = 0

        def forward(self, y):
            self.calls += 1
            return majority(y) if 80 < self.calls < 600 and len(y) == 128 else honest(y)

    g = SmoothedClassifier(Meanwhile().eval(), Gaussian(0.5), 2)
    with pytest.raises(ValueError, match=BATCH):
        g.certify(INPUTS[8:], n=5_000, method="fixed", generator=seeded())


def test_refused_certificates_do_not_stay_in_the_folder(tmp_path):
    data = [(x, 0) for x in INPUTS]
    g = SmoothedClassifier(Turning(100).eval(), Gaussian(0.5), 2)
    with pytest.raises(ValueError, match=r"answered in another way.* set aside as .*refused.jsonl"):
        certify_dataset(g, data, range(24), make_method("fixed", g.noise, 1000), tmp_path, seed=0)
    assert not list(tmp_path.glob("certificates*"))
    assert list(tmp_path.glob("refused*"))


def test_an_answer_that_is_no_number_is_found_before_the_run():
    def broken(y):
        return torch.full((len(y), 3), torch.nan)

    with pytest.raises(ValueError, match=r"got NaN or infinity as the largest logit of 384 of 384 noisy inputs"):
        SmoothedClassifier(broken, Gaussian(0.5), 3).certify(INPUTS, n=100, generator=seeded())


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("batch_size", [1, 2, 8, 128, 300])
def test_honest_networks_pass(precision, batch_size):
    torch.manual_seed(1)
    wide = nn.Sequential(nn.Linear(4, 256), nn.Tanh(), nn.Linear(256, 3)).requires_grad_(False).eval()
    g = SmoothedClassifier(wide, Gaussian(0.5), 3, batch_size=batch_size, precision=precision)
    assert len(g.certify(INPUTS[::6], n=300, method="fixed", generator=seeded())) == 4


def test_kept_chunks_do_not_depend_on_the_order_and_end_with_the_last():
    x, answers = torch.zeros(2), torch.arange(40)
    spots = [Spot(Request(x, i, Stream.ESTIMATION, 0, 40), 0, 7, answers) for i in range(200)]
    kept = []
    for order in (spots, spots[::-1]):
        some = Spots()
        for spot in order:
            some.offer(spot, spot.number, last=spot.request.index == 5)
        kept.append({spot.request.index for spot in some.take()})
        assert not some.take()
    assert kept[0] == kept[1] and 5 in kept[0] and 32 <= len(kept[0]) <= 33
    chosen, found = rows(spots[:3], 8)
    assert [places for _, places in chosen] == [[39, 25, 11], [39, 25, 11], [39, 19]]
    assert found.tolist() == [39, 25, 11, 39, 25, 11, 39, 19]


def test_near_ties_that_rounding_turns_are_no_difference():
    torch.manual_seed(0)
    logits = torch.randn(500, 3, dtype=torch.float64)
    others = logits + 1e-6 * torch.randn(500, 3, dtype=torch.float64)
    logits[0] = torch.tensor([1.0, 1.0 + 1e-7, 0.0])
    others[0] = torch.tensor([1.0 + 1e-7, 1.0, 0.0])
    rounding = rounding_of(logits, others, 2e-3)
    assert 1e-6 < rounding < 1e-5
    assert not differ(logits, others, 0.01, 8 * rounding).any()
    others[3] = others[3].flip(0)
    assert differ(logits, others, 0.01, 8 * rounding).tolist() == [i == 3 for i in range(500)]


def test_a_difference_of_all_copies_is_no_rounding():
    logits = torch.tensor([[1.0, -1.0]] * 10).double()
    assert rounding_of(logits, 0.9 * logits, 2e-3) == 0.0
