import math

import pytest
import torch

from scoregen.metrics import class_balance
from scoregen.metrics.classes import confidence


def logits_of(labels, classes=4, sharpness=5.0):
    return sharpness * torch.nn.functional.one_hot(torch.tensor(labels), classes).double()


def test_shares_and_total_variation_are_counted():
    found = class_balance(logits_of([0, 0, 1, 2]))
    assert found.shares.tolist() == [0.5, 0.25, 0.25, 0.0]
    assert found.total_variation == pytest.approx(0.25)
    assert found.entropy == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(4))


def test_balance_is_against_the_reference_when_there_is_one():
    assert class_balance(logits_of([0, 0, 1, 2]), logits_of([0, 1, 0, 2])).total_variation == 0
    assert class_balance(logits_of([0, 0]), logits_of([1, 2])).total_variation == 1


def test_confidence_is_the_mean_top_probability():
    top = math.exp(5) / (math.exp(5) + 3)
    assert confidence(logits_of([0, 3])) == pytest.approx(top)
    assert confidence(torch.zeros(6, 4)) == pytest.approx(0.25)
