r"""The faults: each is tried in a folder of its own, ends in an outcome in words, and counts what was lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_process import Child, Ended, free_port, one_message

TOY = ["data=toy2d", "data.n=100", "model.network.width=8", "model.network.depth=1", "trainer.batch_size=8"]
TOY += ["trainer.precision=no", "trainer.log_every=1", "preview.every=null"]
RUN = [*TOY, "trainer.steps=40", "trainer.checkpoint_every=3", "trainer.keep_last=3", "trainer.resume=auto"]
LAST_STEP = "step_00000040"  # of RUN
DIGITS = ["data=digits", "trainer.steps=1", "trainer.batch_size=8", "trainer.precision=no", "preview.every=null"]
CLASSIFIER = [*DIGITS, "model=classifier", "model.channels=[4]", "model.blocks=[1]", "loss=cross_entropy"]
SAME, MESSAGE = "ends as undisturbed", "one message"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@dataclass
class Seen:
    r"""Of one trial: the outcome in words, and how many files or lines differ from an undisturbed run."""

    outcome: str
    lost: int = 0


@dataclass
class Bench:
    r"""The place of a campaign: undisturbed runs, made once, and folders for trials.

    Args:
        root: folder of everything. seed: of the moments.
    """

    root: Path
    seed: int
    made: dict[str, tuple[Path, float]] = field(default_factory=dict)
    trials: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def new(self) -> Path:
        r"""A folder for a trial."""
        self.trials += 1
        folder = self.root / f"trial_{self.trials:04d}"
        folder.mkdir()
        return folder

    def job(self, name: str, number: int = 1) -> "Job":
        r"""One of the jobs that are disturbed: train, sample or certify, by some processes."""
        if name == "train":
            return Job(self, "train", RUN, "hydra.run.dir", number)
        options = {"sample": ["n=30", "batch_size=2", "sampler=ddim", "sampler.steps=4"]}
        options["certify"] = ["data=digits", "n=2000", "n0=50", "max_inputs=40", "method=fixed"]
        network = self.network("digits" if name == "sample" else "classifier")
        return Job(self, name, [f"checkpoint={network}", *options[name]], "out", number)

    def network(self, name: str) -> Path:
        r"""The run folder of a small network."""
        return self.undisturbed(name, lambda place: self._train(name, place))[0]

    def _train(self, name: str, place: Path) -> None:
        small = ["model.network.channels=[4]", "model.network.attention=[]"]
        overrides = CLASSIFIER if name == "classifier" else [*DIGITS, *small]
        _done(Child("train", [*overrides, f"hydra.run.dir={place}"], self.new() / "log").wait())

    def undisturbed(self, name: str, make: Callable[[Path], None]) -> tuple[Path, float]:
        r"""A folder that is made once, and the seconds that it took."""
        if name not in self.made:
            began, place = time.monotonic(), self.root / name
            make(place)
            self.made[name] = place, time.monotonic() - began
        return self.made[name]


@dataclass
class Job:
    r"""A job that is disturbed and then gone on with."""

    bench: Bench
    name: str
    overrides: list[str]
    key: str
    number: int

    def start(self, out: Path, log: str = "log", log_folder: Path | None = None, **options: Any) -> list[Child]:
        r"""Its processes."""
        overrides, logs = [*self.overrides, f"{self.key}={out}"], log_folder or out.parent
        if self.number == 1:
            return [Child(self.name, overrides, logs / log, **options)]
        port = free_port()
        return [
            Child(self.name, overrides, logs / f"{log}{rank}", processes=(rank, self.number, port), **options)
            for rank in range(self.number)
        ]

    def undisturbed(self) -> tuple[Path, float]:
        r"""The folder of an undisturbed run, and its seconds."""
        return self.bench.undisturbed(f"{self.name}_{self.number}", self._finish)

    def _finish(self, out: Path) -> None:
        for ended in [child.wait() for child in self.start(out, f"log_{out.name}")]:
            _done(ended)

    def finished(self, out: Path, wanted: str = SAME) -> Seen:
        r"""Goes on in a folder to the end; `wanted` where the result is that of the undisturbed run."""
        for ended in [child.wait() for child in self.start(out, "again")]:
            if ended.status:
                return Seen(f"going on fails: {ended.errors.strip()[-200:]}", 1)
        lost = self.difference(out)
        litter = [path.name for path in (*out.rglob("*.partial"), *out.rglob(".lock*"))]
        return Seen(f"{lost} files or lines differ" if lost else f"litter {litter}" if litter else wanted, lost)

    def difference(self, out: Path) -> int:
        r"""How many files of the result, or lines of its logs, differ from the undisturbed ones."""
        a, b = (_contents(folder) for folder in (self.undisturbed()[0], out))
        return sum(((a - b) + (b - a)).values())

    def moment(self) -> float:
        r"""Seconds from the start to a random moment of the undisturbed run."""
        return self.bench.random.uniform(0, self.undisturbed()[1])


def _done(ended: Ended) -> None:
    if ended.status:
        raise RuntimeError(f"an undisturbed job fails: {ended.errors}")


def _contents(folder: Path) -> Counter[tuple[str, str]]:
    r"""What a result consists of, without clocks and places."""
    found: Counter[tuple[str, str]] = Counter()
    state = folder / "checkpoints" / "last" / "state.json"
    if state.exists():
        kept = json.loads(state.read_text())
        found.update((name, sha) for name, sha in kept["files"].items() if name != "config.yaml")
        found["step", str(kept["step"])] += 1
    for path in (*folder.glob("metrics.jsonl"), *folder.glob("certificates*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            clock = ("images_per_second", "eta_seconds", "seconds")
            found["line", json.dumps({k: v for k, v in record.items() if k not in clock}, sort_keys=True)] += 1
    for path in (*folder.glob("images/*"), *folder.glob("parts/*"), *folder.glob("grid.png"), *folder.glob("table.md")):
        found[path.name, path.read_bytes().hex()] += 1
    return found


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
