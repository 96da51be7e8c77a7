r"""The room that checkpoints need is known before a run starts."""

import shutil
from collections import namedtuple

import pytest
from tiny import TOY, train

from scoregen.training import room

Usage = namedtuple("Usage", "total used free")
OPTIONS = [*TOY, "model.network.width=64", "trainer.steps=4", "trainer.checkpoint_every=1"]


def spied(monkeypatch, free: int) -> list[int]:
    sizes: list[int] = []
    real = room.needed

    def needed(parts) -> int:
        sizes.append(room.size_of_checkpoint(parts))
        return real(parts)

    monkeypatch.setattr(room, "needed", needed)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
    return sizes


def test_too_little_room_is_said_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    sizes = spied(monkeypatch, 1000)
    folder = train(tmp_path / "run", *OPTIONS, "trainer.keep_last=1")
    said = capsys.readouterr().err
    assert f"need about {2 * sizes[0] / 1e6:,.1f} MB, and '{folder}' has 0.0 MB free" in said
    written = sum(file.stat().st_size for file in (folder / "checkpoints/step_00000004").iterdir())
    assert written == pytest.approx(sizes[0], rel=0.1)


def test_what_is_kept_for_good_counts_and_what_is_there_does_not(tmp_path, monkeypatch, capsys):
    sizes = spied(monkeypatch, 10**9)
    train(tmp_path / "run", *OPTIONS, "trainer.keep_last=1", "trainer.keep_every=2", "trainer.steps=2")
    assert "need about" not in capsys.readouterr().err
    spied(monkeypatch, 0)
    train(tmp_path / "run", *OPTIONS, "trainer.keep_last=2", "trainer.resume=auto")
    assert f"need about {2 * sizes[0] / 1e6:,.1f} MB" in capsys.readouterr().err  # three at a time, one is there
