r"""What is held out: always the same samples, of the right part, and never more than there are."""

import pytest
import torch

from scoregen.data.parts import NAMES, check_held, divide, part_of
from scoregen.errors import UserError


def numbers(pieces, sizes):
    r"""(stored part, number) of each sample of a part."""
    return [
        (piece.stored, int(k))
        for piece in pieces
        for k in (range(sizes[piece.stored]) if piece.chosen is None else piece.chosen)
    ]


@pytest.mark.parametrize("validation", ["auto", "none", 0, 0.2, 7], ids=str)
@pytest.mark.parametrize("test", ["auto", "none", None, 0, 0.3, 5], ids=str)
@pytest.mark.parametrize("sizes", [{"train": 40}, {"train": 40, "test": 10, "validation": 6}], ids=["whole", "parts"])
def test_parts_are_apart_and_the_training_part_keeps_what_is_not_held_out(sizes, test, validation):
    parts = {name: numbers(pieces, sizes) for name, pieces in divide(sizes, test, validation).items()}
    everything = [sample for name in NAMES for sample in parts[name]]
    assert len(set(everything)) == len(everything)
    held = [sample for name in ("test", "validation") for sample in parts[name] if sample[0] == "train"]
    assert sorted(parts["train"] + held) == [("train", k) for k in range(40)]


@pytest.mark.parametrize(
    ("sizes", "test", "validation", "expected"),
    [
        ({"train": 40}, "auto", "auto", (36, 0, 4)),
        ({"train": 40}, "auto", 0.1, (32, 4, 4)),
        ({"train": 40}, "all", "auto", (0, 0, 40)),
        ({"train": 40}, "none", "auto", (40, 0, 0)),
        ({"train": 40}, 0.25, 6, (24, 6, 10)),
        ({"train": 40, "test": 10}, "auto", "auto", (40, 0, 10)),
        ({"train": 40, "test": 10}, "all", "auto", (0, 0, 50)),
        ({"train": 40, "test": 10}, 0.1, "auto", (36, 0, 4)),
        ({"train": 40, "test": 10}, "a/b", "auto", (40, 0, 10)),
        ({"train": 40, "test": 10, "validation": 6}, "auto", "auto", (40, 6, 10)),
        ({"train": 40, "test": 10, "validation": 6}, "auto", "none", (40, 0, 10)),
        ({"train": 40, "test": 10, "validation": 6}, "none", 0.5, (20, 20, 0)),
    ],
)
def test_each_choice_gives_its_numbers(sizes, test, validation, expected):
    parts = divide(sizes, test, validation)
    assert tuple(len(numbers(parts[name], sizes)) for name in NAMES) == expected


def test_the_split_is_the_permutation_of_seed_0_and_the_test_part_does_not_depend_on_the_validation_part():
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(divide({"train": 40}, "auto", "none")["test"][0].chosen, order[36:])
    assert torch.equal(divide({"train": 40}, "auto", "none")["train"][0].chosen, order[:36])
    assert torch.equal(divide({"train": 40}, "auto", 0.5)["test"][0].chosen, order[36:])
    assert torch.equal(part_of(40, train=True), order[:36])


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"test": "al"}, r"data.test: must be auto, all, none, .* or a path, got 'al'. Did you mean 'all'"),
        ({"validation": "all"}, r"data.validation: must be auto, none, a share below 1"),
        ({"test": -0.1}, "got -0.1"),
        ({"test": 1.5}, "got 1.5"),
        ({"test": True}, "got True"),
        ({"validation": float("nan")}, "got nan"),
    ],
    ids=str,
)
def test_choices_that_are_none_are_refused(choices, text):
    with pytest.raises(UserError, match=text):
        check_held(**choices)


@pytest.mark.parametrize("choices", [{"test": 40}, {"validation": 36}, {"test": 0.99}], ids=str)
def test_a_choice_must_leave_samples_for_training(choices):
    with pytest.raises(UserError, match="must leave samples for training"):
        divide({"train": 40}, **{"test": "auto", "validation": "auto"} | choices)
