r"""A job: one typed description of a piece of work that owns one folder.

Its fields are the keys of its root in conf/, of `--help` and of the record in its folder; its annotations are the
checks. `run(out)` checks and builds everything, takes the folder, says what it is about to do, and does what is not
there yet.
"""

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from scoregen import storage
from scoregen.average_lengths import length_of
from scoregen.config import Node, typed
from scoregen.data import Source, identity
from scoregen.description import plain
from scoregen.errors import UserError
from scoregen.targets import modules

if TYPE_CHECKING:
    from scoregen.lock import Owner

Weights = str  # "ema", "model" or "ema:LENGTH", as `LoadingJob` checks


@dataclass(frozen=True)
class Plan:
    r"""What a job is about to do, once everything is checked and built.

    Args:
        work: does it. lines: say it, on the first process.
        facts: join the record: digests of inputs, costs.
    """

    work: Callable[[], None]
    lines: list[str] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    r"""Base class of the jobs.

    Attributes:
        known: names of what the job writes into its folder.
        free: fields that change no result: a job goes on in its folder with other ones.
        folder_key: name of the folder on the command line.
        read_parts: of its data, which a dry run reads.
    """

    known: ClassVar[tuple[str, ...]] = ()
    free: ClassVar[tuple[str, ...]] = ("batch_size", "dry_run", "trust")
    folder_key: ClassVar[str] = "out"
    read_parts: ClassVar[tuple[Literal["train", "validation", "test"], ...]] = ("test",)
    dry_run: bool = False

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for part in fields(self):
            value, hint = getattr(self, part.name), hints[part.name]
            if Node in (hint, *typing.get_args(hint)) and not isinstance(value, Mapping | None):
                value = _node(value, part.name)
            value = typed(value, hint, part.name)
            object.__setattr__(self, part.name, value)

    @abstractmethod
    def plan(self, out: Path) -> Plan:
        r"""Checks and builds everything; called on every process. Nothing is written.

        Args:
            out: the folder, as an absolute path.

        Raises:
            UserError: a value that does not fit the others, the checkpoint or the data.
        """

    def run(self, out: Path | str, started: Callable[[Path], None] | None = None) -> Path:
        r"""Does what is not there yet. Until the end the folder belongs to this job; a dry run only looks.

        Args:
            out: folder of the results.
            started: called on the first process once the folder is taken.

        Returns:
            The folder.

        Raises:
            UserError: a mistake in the values, or a folder that holds the results of another job or is in use.
            Interrupted: a signal ended the job before it was done.
        """
        from scoregen import parallel
        from scoregen.lock import owned

        self.join_processes()
        out = Path(parallel.gather(str(Path(out).resolve()))[0])
        if self.dry_run:
            self._announced(out)
            self._read_data()
            return out
        with owned(out, self.folder_key) as owner:
            plan = self._announced(out)
            with self.ended_by_signals(owner):
                self._do(plan, out, started)
        return out

    def _announced(self, out: Path) -> Plan:
        from scoregen import parallel

        plan = self.plan(out)
        self.check_folder(out, plan)
        if parallel.rank() == 0:
            print(*plan.lines, sep="\n", end="\n" if plan.lines else "", flush=True)
        return plan

    def _read_data(self) -> None:
        r"""Reads what the job would read in hours, and says so, on the first process."""
        from scoregen import parallel
        from scoregen.data import Source
        from scoregen.data.reading import read_all

        source = getattr(self, "data", None)
        if isinstance(source, Source) and parallel.rank() == 0:
            print(read_all(source, self.read_parts), flush=True)

    def ended_by_signals(self, owner: "Owner") -> AbstractContextManager[None]:
        r"""The time in which a signal ends the job between two items."""
        from scoregen.interruption import interruptible

        return interruptible(owner)

    def _do(self, plan: Plan, out: Path, started: Callable[[Path], None] | None) -> None:
        from scoregen import parallel
        from scoregen.interruption import check_folder
        from scoregen.lock import remove_partials

        parallel.barrier()  # every process has looked at the folder before the first one writes there
        if parallel.rank() == 0:
            remove_partials(out)
            self.take_folder(out, plan)
            if started is not None:
                started(out)
        parallel.barrier()
        try:
            plan.work()
            check_folder()
        except UserError:
            if parallel.rank() == 0:
                self.give_back(out)
            raise
        parallel.barrier()  # who reads the folder next must not meet an old one

    def join_processes(self) -> None:
        r"""Joins the processes that a launcher has started."""
        from scoregen import parallel

        parallel.initialize()

    def check_folder(self, out: Path, plan: Plan) -> None:
        r"""Refuses a folder of another job."""
        digested = {"weights_sha256": "checkpoint", "samples_sha256": "samples", "data_hash": "data"}  # what may move
        moved = [place for digest, place in digested.items() if digest in plan.facts]
        record = self.record(plan)
        self._check_data(out, record)
        storage.claim(out, record, self.known, moved)

    def source(self) -> Source | None:
        r"""The data of the job; None for a job that reads none."""
        found = getattr(self, "data", None)
        return found if isinstance(found, Source) else None

    def _check_data(self, out: Path, record: Mapping[str, Any]) -> None:
        r"""Refuses a folder of other data, and says what differs."""
        source = self.source()
        if source is None or not (out / storage.RECORD).exists():
            return
        old = storage.read_record(out)
        same_choice = old.get("data") == storage.as_json(record["data"])
        if same_choice and old.get("dataset", {}).get("fingerprint") != record["dataset"]["fingerprint"]:
            found = identity.changes(identity.read_entries(out), source.entries())
            raise UserError(f"out: '{out}' holds results of other data: {found}. Choose another out.")
        parts = [known.get("dataset", {}).get("samples", {}) for known in (old, record)]
        if same_choice and parts[0] != parts[1]:
            then, now = (", ".join(f"{count:,} {name}" for name, count in part.items()) for part in parts)
            raise UserError(
                f"data.test, data.validation: '{out}' holds results of other parts of these data: {then} samples, and "
                f"now {now}. Give the choice of then, or another out."
            )

    def take_folder(self, out: Path, plan: Plan) -> None:
        r"""Writes the record, and the entries of the data beside it."""
        storage.write_record(out, self.record(plan))
        if (source := self.source()) is not None:
            identity.write_entries(out, source.entries())

    def give_back(self, out: Path) -> None:
        r"""Leaves the folder free for other values where a mistake ended the job before its first result."""
        if not any((out / name).exists() for name in self.known):
            for name in (storage.RECORD, identity.ENTRIES):
                (out / name).unlink(missing_ok=True)

    def record(self, plan: Plan) -> dict[str, Any]:
        r"""What the results are a function of, as plain data: job, fields and facts."""
        kept = {part.name: self.described(part.name) for part in fields(self) if part.name not in self.free}
        if isinstance(data := kept.get("data"), dict):
            kept["data"] = identity.apart_from_place(data)
        known = {} if (source := self.source()) is None else {"dataset": source.identity()}
        return {"job": self.name(), **kept, **known, **plan.facts}

    def described(self, name: str) -> Any:
        r"""A field as plain data."""
        return plain(getattr(self, name), name)

    def result(self, out: Path) -> float | None:
        r"""One number of a finished folder, the objective of a sweep; None for a job that measures nothing."""
        return None

    @classmethod
    def name(cls) -> str:
        r"""The name on the command line."""
        return cls.__name__.lower()

    def refuse_ignored(self, reasons: Mapping[str, str]) -> None:
        r"""Refuses values that would be ignored.

        Args:
            reasons: fields that say nothing in this job, each with what they need.

        Raises:
            UserError: one of them is not at its default.
        """
        defaults = {part.name: part for part in fields(self)}
        for name, reason in reasons.items():
            value = self.described(name)
            if value != plain(_default(defaults[name]), name):
                raise UserError(f"{name}: {reason}, got {name}={storage.short(value)}. Leave it out.")


@dataclass(frozen=True, kw_only=True)
class LoadingJob(Job):
    r"""Base class of the jobs that load checkpoints; abstract.

    Args:
        trust: your own modules, whose classes a checkpoint may name: ["mynet"]; and places outside it, folders
            ("./pipeline") or hub ids, that it may read. A checkpoint never says what is trusted.
    """

    trust: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        modules(self.trust)
        length_of(getattr(self, "weights", "ema"))

    def loaded(self, checkpoint: Path | str, weights: Weights, null_label: int | None = None) -> Any:
        r"""The model of a checkpoint, in evaluation mode on the device of this process."""
        from scoregen import parallel
        from scoregen.loading import load

        return load(checkpoint, weights, parallel.device(), self.trust, null_label)


def _node(value: Any, name: str) -> Any:
    r"""The node of an object that was given from Python."""
    node = plain(value, name)
    return {key: inner for key, inner in node.items() if key != "_partial_"} if isinstance(node, dict) else node


def _default(part: Field[Any]) -> Any:
    return part.default if part.default_factory is MISSING else part.default_factory()


def origin(checkpoint: Path, weights: str) -> dict[str, str]:
    r"""The facts of a checkpoint for a record: its place, and the digest of its weights."""
    from scoregen.loading import weights_digest

    return {"checkpoint": str(checkpoint), "weights_sha256": weights_digest(checkpoint, weights)}
