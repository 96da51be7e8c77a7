r"""The faults: each is tried in a folder of its own, ends in an outcome in words, and counts what was lost."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fault_jobs import MESSAGE, Bench, Job, Seen
from fault_process import Ended, one_message

LAST_STEP = "step_00000040"  # of the training
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def killed(name: str, number: int = 1) -> Callable[[Bench], Seen]:
    r"""SIGKILL at two random moments, then to the end."""

    def trial(bench: Bench) -> Seen:
        job, out = bench.job(name, number), bench.new() / "out"
        for _ in range(2):
            moment, children = job.moment(), job.start(out)
            time.sleep(moment)
            for child in bench.random.sample(children, len(children)):
                child.send(signal.SIGKILL)
            for child in children:
                child.wait()
        return job.finished(out)

    return trial


def killed_in_checkpoint(bench: Bench) -> Seen:
    r"""SIGKILL while a checkpoint is written."""
    job, out = bench.job("train"), bench.new() / "out"
    (child,) = job.start(out)
    wait = bench.random.randrange(12)  # so many checkpoints are let through
    while child.poll() is None and wait >= 0:
        if any((out / "checkpoints").glob(".*.partial")):
            wait -= 1
            while wait >= 0 and any((out / "checkpoints").glob(".*.partial")) and child.poll() is None:
                time.sleep(0.0005)
    time.sleep(bench.random.uniform(0, 0.01))
    child.kill_after(0)
    return job.finished(out)


def started_twice(name: str, together: bool) -> Callable[[Bench], Seen]:
    r"""Two starts in one folder, together or one after the other's; tried again where the first ended too early."""

    def trial(bench: Bench) -> Seen:
        job, out = bench.job(name), bench.new() / "out"
        job.undisturbed()
        first = job.start(out, "first")
        if not together:
            while not (out / ".lock").exists() and first[0].poll() is None:
                time.sleep(0.001)
            time.sleep(bench.random.uniform(0, 0.1))
        ends = [child.wait() for child in (*first, *job.start(out, "second"))]
        late = ends[1].began > ends[0].began + ends[0].seconds - 0.5 or LAST_STEP in ends[1].output
        if [end.status for end in ends] == [0, 0] and late:  # the second one found a run that was done
            return trial(bench)
        refused = [end for end in ends if end.status == 1 and "is in use by process" in end.errors]
        if sorted(end.status for end in ends) != [0, 1] or len(refused) != 1 or one_message(refused[0]) != MESSAGE:
            return Seen(f"status {[end.status for end in ends]}: {[end.errors[-100:] for end in ends]}", 1)
        lost = job.difference(out)
        return Seen("one refused in one line" if not lost else f"{lost} lines differ", lost)

    return trial


def file_limit(bench: Bench) -> Seen:
    r"""Files may have so many bytes and no more, as on a full disk; then there is room again."""
    job, out = bench.job("train"), bench.new() / "out"
    sizes = [path.stat().st_size for path in (job.undisturbed()[0] / "checkpoints" / "last").iterdir()]
    (child,) = job.start(out, limit=bench.random.randrange(1, max(sizes)))
    return _full(job, out, child.wait())


def full_disk(bench: Bench) -> Seen:
    r"""A small file system is full; then there is room again."""
    job, folder = bench.job("train"), bench.new()
    pages = sum(-(-path.stat().st_size // 4096) for path in job.undisturbed()[0].rglob("*") if path.is_file())
    free = bench.random.randrange(5, pages // 2)
    with small_disk(folder / "disk", 3 * pages * 4096):
        (folder / "disk" / "filler").write_bytes(bytes((3 * pages - free) * 4096))
        (child,) = job.start(folder / "disk" / "out")
        ended = child.wait()
        (folder / "disk" / "filler").unlink()
        return _full(job, folder / "disk" / "out", ended)


def read_only(bench: Bench) -> Seen:
    r"""A file system that cannot be written to."""
    job, folder = bench.job("train"), bench.new()
    with small_disk(folder / "disk", 100_000):
        (folder / "disk" / "out").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(folder / "disk")], check=True)
        (child,) = job.start(folder / "disk" / "out", log_folder=folder)
        ended = child.wait()
    return Seen(one_message(ended) if ended.status == 1 else f"status {ended.status}")


def _full(job: Job, out: Path, ended: Ended) -> Seen:
    warning = "trainer.keep_last: the checkpoints of this run need about"  # comes before the fault, which is right
    ended.errors = "\n".join(line for line in ended.errors.splitlines() if warning not in line)
    told = one_message(ended)
    if ended.status != 1 or told != MESSAGE:
        return Seen(f"status {ended.status}, {told}")
    if partial := [path.name for path in out.rglob("*.partial")]:
        return Seen(f"left {partial}")
    return job.finished(out, "one message; goes on with room")


@contextmanager
def small_disk(place: Path, size: int) -> Any:
    r"""A file system of some bytes in memory; needs to be root."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def can_mount(root: Path) -> bool:
    r"""Whether this process may make a file system."""
    with suppress(OSError, subprocess.CalledProcessError), small_disk(root / "mount", 100_000):
        return os.path.ismount(root / "mount")
    return False


def signalled(name: str, number: int = 1) -> Callable[[Bench], Seen]:
    r"""A signal at a random moment, then to the end."""

    def trial(bench: Bench) -> Seen:
        job, out, which = bench.job(name, number), bench.new() / "out", bench.random.choice(SIGNALS)
        moment, children = job.moment(), job.start(out)
        time.sleep(moment)
        for child in children:
            child.send(which)
        ends = [child.wait() for child in children]
        begun = any((out.parent / f"log{'' if number == 1 else 0}").read_text())
        told = [end for end in ends if end.status == 128 + which and which.name in end.errors]
        fine = {0, 128 + which} if begun else {0, 128 + which, -which}  # before the work has begun nothing is lost
        if not {end.status for end in ends} <= fine and not (not told and {-which} >= {e.status for e in ends}):
            return Seen(f"{which.name}: status {[end.status for end in ends]} {ends[0].errors[-150:]}")
        if any(one_message(end) != MESSAGE for end in told):
            return Seen(f"{which.name}: {[one_message(end) for end in told]}")
        return job.finished(out)

    return trial


def damage(last: Path, chance: random.Random) -> str:
    r"""Damages a checkpoint in one of several ways; its name."""
    file = chance.choice(sorted(path for path in last.iterdir()))
    content = file.read_bytes()
    kind = chance.choice(["truncated", "empty", "flipped", "missing", "all missing", "bad state", "foreign config"])
    if kind == "truncated":
        file.write_bytes(content[: chance.randrange(len(content))])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "flipped":
        place = chance.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :])
    elif kind == "missing":
        file.unlink()
    elif kind == "all missing":
        shutil.rmtree(last)
    elif kind == "bad state":
        (last / "state.json").write_text(chance.choice(["{]", "null", '{"step": "abc"}', '{"step": -5}']))
    else:
        (last / "config.yaml").write_text("model: {_target_: scoregen.models.MLP}\n")
    return f"{kind} {file.name}"


def damaged(bench: Bench) -> Seen:
    r"""The last checkpoint of a run is damaged; it is passed over, which is said, and the run is the same again."""
    job, out = bench.job("train"), bench.new() / "out"
    shutil.copytree(job.undisturbed()[0], out, symlinks=True)
    kind = damage((out / "checkpoints" / "last").resolve(), bench.random)
    (child,) = job.start(out, "said")
    ended = child.wait()
    if ended.status or "is used in its place" not in ended.errors:
        return Seen(f"{kind}: status {ended.status}, {ended.errors[-150:]}", 1)
    return job.finished(out, "passed over, said; the same again")
