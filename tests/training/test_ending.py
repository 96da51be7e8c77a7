r"""Ends from outside: signals, a limit of time, a run folder that disappears."""

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import ClassVar

import pytest
from pairs import pair
from runs import assert_same_run
from tiny import TOY, numbers, train

from scoregen.errors import Interrupted, UserError
from scoregen.training import Hook, Moment
from scoregen.training.ending import Ending

RUN = [*TOY, "trainer.steps=8", "trainer.checkpoint_every=100", "trainer.log_every=3"]
SIGNALS = ["SIGTERM", "SIGUSR1", "SIGINT"]


class Signals(Hook):
    r"""Sends its own process a signal at a step."""

    def __init__(self, every: int, name: str = "SIGTERM") -> None:
        super().__init__(every)
        self.name = name

    def __call__(self, moment: Moment) -> None:
        if moment.step == self.every:
            os.kill(os.getpid(), getattr(signal, self.name))


def sends(name: str, step: int) -> dict:
    return {"preview": {"_target_": f"{__name__}.Signals", "every": step, "name": name}}


@pytest.mark.parametrize("name", SIGNALS)
def test_after_a_signal_the_step_ends_and_the_run_can_be_resumed_bit_for_bit(tmp_path, name):
    before = signal.getsignal(getattr(signal, name))
    whole = train(tmp_path / "whole", *RUN)
    text = rf"{name} ended the run after step 6 of 8. Resume it with trainer.resume=auto hydra.run.dir=.*part"
    with pytest.raises(Interrupted, match=text) as caught:
        train(tmp_path / "part", *RUN, **sends(name, 5))
    assert caught.value.status == 128 + getattr(signal, name)
    assert (tmp_path / "part" / "checkpoints" / "last").resolve().name == "step_00000006"
    assert signal.getsignal(getattr(signal, name)) == before
    assert_same_run(whole, train(tmp_path / "part", *RUN, "trainer.resume=auto"))


def test_the_limit_of_time_ends_the_run_with_status_75(tmp_path):
    whole = train(tmp_path / "whole", *RUN)
    with pytest.raises(Interrupted, match=r"trainer.max_hours=1e-09 ended the run after step 1 of 8") as caught:
        train(tmp_path / "part", *RUN, "trainer.max_hours=1e-9")
    assert caught.value.status == 75
    assert_same_run(whole, train(tmp_path / "part", *RUN, "trainer.resume=auto", "trainer.max_hours=1"))


@pytest.mark.parametrize("hours", [0, -1])
def test_a_limit_that_is_no_time_is_refused(tmp_path, hours):
    with pytest.raises(UserError, match=r"trainer: max_hours must be > 0 and finite"):
        train(tmp_path, *RUN, f"trainer.max_hours={hours}")


class Seen(Hook):
    r"""Writes its steps down."""

    steps: ClassVar[list[int]] = []

    def __call__(self, moment: Moment) -> None:
        Seen.steps.append(moment.step)


@pytest.mark.parametrize("end", [4, 8])
def test_the_hooks_of_the_step_of_a_signal_run_when_the_run_is_resumed(tmp_path, monkeypatch, end):
    Seen.steps, calls = [], iter(range(1, 100))
    seen = {"preview": {"_target_": f"{__name__}.Seen", "every": 4}}
    options = [*RUN, "data.validation=0.2", "early_stopping.every=2", "early_stopping.n=20"]
    whole = train(tmp_path / "whole", *options, **seen)
    monkeypatch.setattr(Ending, "wish", lambda self: 143 if next(calls) == end else 0)
    with pytest.raises(Interrupted, match=f"after step {end} of 8"):
        train(tmp_path / "part", *options, **seen)
    assert Seen.steps == [4, 8, *[4, 8][: end // 8]]
    assert_same_run(whole, train(tmp_path / "part", *options, "trainer.resume=auto", **seen))
    assert Seen.steps == [4, 8, 4, 8]


def test_the_echo_of_a_signal_is_no_second_one():
    with Ending() as ending:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert ending.wish() == 143


SECOND = """
import os, signal, time
from scoregen.training.ending import Ending
with Ending() as ending:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1.2)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""


def test_a_second_signal_ends_at_once():
    begun = time.monotonic()
    assert subprocess.run([sys.executable, "-c", SECOND], timeout=50).returncode == -signal.SIGINT
    assert time.monotonic() - begun < 50


class Moves(Hook):
    r"""Renames or deletes the run folder."""

    def __init__(self, every: int, to: str | None = None) -> None:
        super().__init__(every)
        self.to = to

    def __call__(self, moment: Moment) -> None:
        if moment.folder.exists():
            shutil.rmtree(moment.folder) if self.to is None else os.rename(moment.folder, self.to)


@pytest.mark.parametrize("where", ["log", "checkpoint", "hook"])
@pytest.mark.parametrize("deleted", [False, True], ids=["renamed", "deleted"])
def test_a_run_whose_folder_disappears_ends_with_a_message(tmp_path, where, deleted):
    every = {"log": 100, "checkpoint": 100, "hook": 100} | {where: 2}
    moves = {"_target_": f"{__name__}.Moves", "every": 1 if where == "hook" else 3}
    moves |= {} if deleted else {"to": str(tmp_path / "moved")}
    options = [*TOY, "trainer.steps=8", f"trainer.log_every={every['log']}"]
    options += [f"trainer.checkpoint_every={every['checkpoint']}"]
    with pytest.raises(UserError, match=r"hydra.run.dir: '.*run' was renamed or deleted during the run, which ends"):
        train(tmp_path / "run", *options, preview=moves)
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "moved" / "metrics.jsonl").exists() == (not deleted)


TWO = """
import os, signal
import scoregen.monitors
from scoregen.command_line import run_job
from scoregen.parallel import rank

class Signals(scoregen.monitors.Preview):
    def __call__(self, moment):
        if rank() == 1 and moment.step == 3:
            os.kill(os.getpid(), signal.SIGUSR1)

scoregen.monitors.Preview = Signals
run_job("train")
"""


def test_two_processes_end_after_the_same_step_when_one_gets_a_signal(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    options = [*RUN, "trainer.steps=300", "preview.every=3", "hydra.run.dir=two"]
    process = pair(tmp_path, str(tmp_path / "two.py"), *options)
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "SIGUSR1 ended the run after step 5 of 300" in output, output
    assert (tmp_path / "two" / "checkpoints" / "last").resolve().name == "step_00000005"
    assert [line["step"] for line in numbers(tmp_path / "two")] == [3]
