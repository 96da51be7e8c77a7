r"""A folder has one owner at a time, whatever becomes of it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny import DIGITS, TOY, command, job, torchrun, train

from scoregen import lock
from scoregen.errors import UserError
from scoregen.lock import Lock, Owner, owned

HOLDS = """
import sys, time
from pathlib import Path
from scoregen import lock
if "plain" in sys.argv: lock.fcntl = None
held = lock.Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(folder: Path, *options: str) -> Iterator[int]:
    r"""Another process that has the folder and is killed in the end; its number."""
    argv = [sys.executable, "-c", HOLDS, str(folder), *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process.pid
        finally:
            process.kill()


@pytest.fixture(params=["flock", "plain"])
def kind(request, monkeypatch) -> str:
    r"""With `flock`, and as on a file system without it."""
    if request.param == "plain":
        monkeypatch.setattr(lock, "fcntl", None)
    return request.param


def test_the_second_process_is_refused_by_host_pid_and_time_until_the_first_one_dies(tmp_path, kind):
    found = rf" on {socket.gethostname()} since \d{{4}}-\d\d-\d\dT[\d:+-]+\. Wait for it or choose another one\."
    with holder(tmp_path / "run", kind) as first:
        with pytest.raises(UserError, match=rf"out: '.*run' is in use by process {first}{found}") as caught:
            Lock(tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert ("If that process has ended, delete" in str(caught.value)) == (kind == "plain")
    Lock(tmp_path / "run").release()
    assert not (tmp_path / "run").exists() or list((tmp_path / "run").iterdir()) == []


def test_a_folder_given_back_is_as_it_was(tmp_path, kind):
    Lock(tmp_path / "a" / "b").release()
    assert list(tmp_path.iterdir()) == []
    with owned(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").write_text("x")
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]


def test_what_stands_where_the_folder_belongs_ends_the_attempt(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError, match=name):
            Lock(tmp_path / name)


def test_of_many_threads_one_has_the_folder_at_any_time(tmp_path, kind):
    inside, seen, done = [0], [], []

    def work() -> None:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            try:
                held = Lock(tmp_path / "run")
            except UserError:
                continue
            inside[0] += 1
            seen.append(inside[0])
            time.sleep(0.001)
            inside[0] -= 1
            held.release()
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {1} and len(done) > 5
    assert list(tmp_path.rglob(".lock*")) == []


def test_without_flock_the_file_of_a_living_or_distant_process_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    for text, taken in (
        (f"process {dead.pid} on {socket.gethostname()} since now", True),
        (f"process {os.getpid()} on {socket.gethostname()} since now", False),
        (f"process {dead.pid} on elsewhere since now", False),
        ("", False),
    ):
        (tmp_path / ".lock").write_text(text)
        if taken:
            Lock(tmp_path).release()
            continue
        with pytest.raises(UserError, match=rf"If that process has ended, delete '{tmp_path}/.lock'"):
            Lock(tmp_path)
        (tmp_path / ".lock").unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    held = Lock(tmp_path / "run")
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun, b"x")
        time.sleep(30)
        os._exit(0)
    try:
        os.read(ready, 1)
        os.close(held._file)  # as death does
        lock._open_files.discard(held._file)
        Lock(tmp_path / "run").release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=r"run/\.lock"):
        Lock(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "content"


def test_a_folder_that_is_renamed_is_noticed(tmp_path):
    (tmp_path / "run").mkdir()
    owner = Owner(tmp_path / "run", "hydra.run.dir")
    owner.check()
    (tmp_path / "run").rename(tmp_path / "other")
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"hydra.run.dir: '.*run' was renamed or deleted while this job wrote there"):
        owner.check()


def test_half_written_files_of_a_killed_process_are_removed_by_the_next_owner(tmp_path):
    run = tmp_path / "run"
    left = [run / ".a.txt.17.partial", run / "images" / ".0.png.17.partial", run / "c" / ".step.partial" / "x"]
    kept = [run / "a.txt", run / "samples" / ".lock", run / "samples" / "images" / ".0.png.18.partial"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    train(run, *RUN)
    assert not any(path.exists() for path in left) and not left[2].parent.exists()
    assert all(path.exists() for path in kept)


RUN = [*TOY, "trainer.steps=3", "trainer.resume=auto"]


def test_every_job_refuses_a_folder_in_use_and_writes_nothing(tmp_path, capsys):
    digits = train(tmp_path / "digits", *DIGITS, "trainer.steps=1")
    with holder(tmp_path / "run") as first:
        before = sorted(path.name for path in (tmp_path / "run").iterdir())
        assert command("train", *RUN, f"hydra.run.dir={tmp_path}/run") == 1
        assert command("sample", f"checkpoint={digits}", "n=1", f"out={tmp_path}/run") == 1
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
    told = [line.split(" on ")[0] for line in capsys.readouterr().err.splitlines()]
    found = f"'{tmp_path}/run' is in use by process {first}"
    assert told == [f"train: hydra.run.dir: {found}", f"sample: out: {found}"]
    job("sample", f"checkpoint={digits}", "n=1").run(tmp_path / "run")


def test_a_dry_run_takes_no_folder_and_is_not_refused(tmp_path):
    with holder(tmp_path / "run"):
        train(tmp_path / "run", *RUN, "dry_run=true")
    train(tmp_path / "new", *RUN, "dry_run=true")
    assert not (tmp_path / "new").exists()


def test_the_processes_of_a_launcher_end_with_one_message(tmp_path):
    with holder(tmp_path / "run") as first:
        process = torchrun(tmp_path, "train.py", *RUN, f"hydra.run.dir={tmp_path}/run")
        output = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and "job.py" not in output
    assert f"is in use by process {first} on" in output
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
