r"""The jobs that are disturbed, their undisturbed results, and how much of a result differs from those."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_process import Child, Ended, free_port

TOY = ["data=toy2d", "data.n=100", "model.network.width=8", "model.network.depth=1", "trainer.batch_size=8"]
TOY += ["trainer.precision=no", "trainer.log_every=1", "preview.every=null"]
RUN = [*TOY, "trainer.steps=40", "trainer.checkpoint_every=3", "trainer.keep_last=3", "trainer.resume=auto"]
DIGITS = ["data=digits", "trainer.steps=1", "trainer.batch_size=8", "trainer.precision=no", "preview.every=null"]
CLASSIFIER = [*DIGITS, "model=classifier", "model.channels=[4]", "model.blocks=[1]", "loss=cross_entropy"]
SAME, MESSAGE = "ends as undisturbed", "one message"


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
