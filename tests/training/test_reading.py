r"""Reading ahead: batches do not depend on the processes that read, and a mistake there is the same message."""

import os

import pytest
import torch
from PIL import Image

from scoregen.data import ArrayDataset, Batches, Folder
from scoregen.errors import UserError
from scoregen.training.reading import batches, chosen_workers


def pictures(folder, damaged=()):
    for k in range(40):
        Image.new("L", (2, 2), k).save(folder / f"{k:02d}.png")
    for k in damaged:
        (folder / f"{k:02d}.png").write_bytes(b"")
    return str(folder)


def read(part, workers):
    order = Batches(len(part), 8, 1, 0, 1, seed=0, start=3, stop=13)
    return torch.stack([x for x, _ in batches(part, order, workers, torch.device("cpu"))])


@pytest.mark.parametrize("damaged", [(), (3, 17)], ids=["whole", "damaged"])
def test_the_batches_are_those_without_other_processes(tmp_path, damaged):
    path = pictures(tmp_path, damaged)
    here, there = (Folder(path, max_corrupt=0.1, test="none") for _ in range(2))
    assert torch.equal(read(here.train, 0), read(there.train, 2))
    assert here.train.damaged == there.train.damaged == len(damaged)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_has_no_traceback_of_another_process(tmp_path, workers, monkeypatch):
    monkeypatch.setattr("scoregen.data.pictures._HEADERS", 1)
    part = Folder(pictures(tmp_path, (3, 17)), max_corrupt=0.0, test="none").train
    with pytest.raises(UserError, match=r"^data.path: '.*(03|17).png' is not a readable image") as caught:
        read(part, workers)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("cores, beside, expected", [(1, 1, 0), (2, 1, 1), (8, 2, 3), (64, 1, 8), (64, 8, 7)])
def test_one_core_each_is_left_to_the_training(tmp_path, monkeypatch, cores, beside, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(beside))
    assert chosen_workers(Folder(pictures(tmp_path)).train) == expected
    assert chosen_workers(ArrayDataset(torch.zeros(4, 2))) == 0
