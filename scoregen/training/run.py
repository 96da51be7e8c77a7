r"""The run folder: whether it is free, what resuming means, and what of a run may not change when it resumes."""

import os
import shutil
from pathlib import Path
from typing import Any

from scoregen.averages import snapshots
from scoregen.checkpoint import find, last_whole, read_config, read_state, verify
from scoregen.checkpoint_files import damage, newest_first
from scoregen.config import Config
from scoregen.data import identity
from scoregen.errors import UserError
from scoregen.storage import difference, short, write_yaml
from scoregen.training.loggers import read_metrics

# What a resumed run may do differently without ceasing to be the same run.
FREE = (
    *("logger", "sampler", "preview", "early_stopping", "quality", "accuracy", "few_calls", "lora_export"),
    *("dry_run", "trust"),
)
FREE_IN_TRAINER = (
    "resume",
    "steps",
    "log_every",
    "checkpoint_every",
    "keep_last",
    "keep_every",
    "max_hours",
    "workers",
    "accumulate",
    "compile",
    "recompute",
    "channels_last",
    "profile",
    "mirror",
    "shard",
    "ddp",
    "timeout",
)


def prepare(folder: Path, config: Config, resume: str | None, entries: identity.Entries = ()) -> Path | None:
    r"""Decides where a run starts, before any work.

    Args:
        folder: the run folder.
        config: the resolved configuration.
        entries: of the data, to say what differs from those of the run.
        resume: None for a new run; "auto" to continue the run in `folder` if it holds one; else the checkpoint to
            resume from.

    Returns:
        The checkpoint to resume from, or None for the first step.

    Raises:
        UserError: the folder holds another run, the checkpoint is missing, the configuration differs from that of the
            run, or the run has done more than `trainer.steps`.
    """
    start = resume_point(folder, resume)
    present = (folder / "config.yaml").exists() or any(folder.glob("checkpoints/*/state.json"))
    if present and resume is None:
        raise UserError(
            f"hydra.run.dir: '{folder}' holds another run. Give trainer.resume=auto to continue it, or another "
            f"hydra.run.dir."
        )
    if present and start is not None and folder.resolve() not in start.parents:
        raise UserError(
            f"hydra.run.dir: '{folder}' holds another run than the checkpoint '{resume}'. Give a new folder."
        )
    if start is not None:
        known = start.parent.parent if start.parent.name == "checkpoints" else start.parent
        _check_data(read_config(start), config, known, entries)
        compare(read_config(start), config, start)
        done, steps = read_state(start)["step"], config["trainer"]["steps"]
        if done > steps:
            raise UserError(
                f"trainer.steps={steps}, but this run has already done {done} steps ('{start}'). Set trainer.steps "
                f"above {done}."
            )
    elif present:
        _check_data(read_config(folder), config, folder, entries)
        compare(read_config(folder), config, folder)
    return start


def resume_point(folder: Path, resume: str | None) -> Path | None:
    r"""The checkpoint that `resume` means in a run folder, read and checked, or None for the first step.

    Raises:
        UserError: the checkpoint is missing or damaged, or the checkpoints of the run are gone.
    """
    if resume is None:
        return None
    if resume != "auto":
        start = find(resume, "trainer.resume").resolve()
        verify(start)
        return start
    checkpoints = folder.resolve() / "checkpoints"  # which may lie elsewhere; what is in it is of this folder
    found = last_whole(checkpoints)
    if found is None:
        _refuse_loss(folder, checkpoints)
    return found


def _refuse_loss(folder: Path, checkpoints: Path) -> None:
    r"""Refuses to start a run anew over what is left of it; one that was killed before its first checkpoint may."""
    there = newest_first(checkpoints)
    if there:
        raise UserError(f"trainer.resume: no checkpoint of '{folder}' is whole: {damage(there[0])}")
    lines = read_metrics(folder)
    if not lines:
        return
    every = read_config(folder)["trainer"].get("checkpoint_every") if (folder / "config.yaml").exists() else None
    # while steps are skipped no checkpoint is written; the folder is made before the first line of the log
    waited = every is None or lines[-1]["step"] <= every or lines[-1].get("skipped", 0) > 0
    if not checkpoints.exists() or not waited:
        raise UserError(
            f"trainer.resume: '{folder}' has a log of {int(lines[-1]['step'])} steps, but its checkpoints are gone. "
            "Put them back, or start anew with another hydra.run.dir."
        )


def inherit(folder: Path, start: Path | None) -> None:
    r"""Copies metrics, best checkpoints and snapshots of averages of the run of `start`, if it is in another folder."""
    if start is None or start.parent.name != "checkpoints" or folder.resolve() in start.parents:
        return
    run, step = start.parent.parent, read_state(start)["step"]
    kept = [path for path in run.glob("checkpoints/best*") if damage(path) is None]
    best = [path for path in kept if read_state(path)["step"] <= step]
    earlier = [path for at, path in snapshots(run).items() if at <= step]
    for old in (*run.glob("metrics.jsonl"), *best, *earlier):
        new, partial = folder / old.relative_to(run), folder / f".{old.name}.partial"
        shutil.copytree(old, partial, dirs_exist_ok=True) if old.is_dir() else shutil.copy(old, partial)
        new.parent.mkdir(exist_ok=True)
        os.replace(partial, new)


def write_config(folder: Path, config: Config, start: Path | None = None) -> None:
    r"""Writes config.yaml, whole or not at all; a new run (no `start`) does not replace another run.

    Raises:
        UserError: another run has begun in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "config.yaml"
    if start is None and not config["trainer"].get("resume") and place.exists():
        raise UserError(f"hydra.run.dir: another run has just begun in '{folder}'. Give another folder.")
    write_yaml(place, config)
    read_config(folder)  # what could not be read from its checkpoints is refused now


def _check_data(old: Config, new: Config, run: Path, entries: identity.Entries) -> None:
    r"""Refuses other data than those of the run, and says what differs."""
    asked = [identity.apart_from_place(config.get("data", {})) for config in (old, new)]
    before, now = (config.get("dataset", {}).get("fingerprint") for config in (old, new))
    if asked[0] == asked[1] and before != now:
        found = identity.changes(identity.read_entries(run), entries)
        raise UserError(
            f"data: the run in '{run}' has other data: {found}. Give the data that it began with, or start a new run "
            "with another hydra.run.dir."
        )


def compare(old: Config, new: Config, where: Path) -> None:
    r"""Refuses to resume with a configuration that would make another run of it."""
    found = difference(_essential(old), _essential(new))
    if found is not None:
        key, before, now = found
        raise UserError(
            f"{key}: the run in '{where}' has {short(before)}, now it is {short(now)}. A resumed run keeps its "
            "configuration: give the old value, or start a new run with another hydra.run.dir."
        )


def _essential(config: Config) -> dict[str, Any]:
    kept = {k: v for k, v in config.items() if k not in FREE}
    kept["trainer"] = {k: v for k, v in config.get("trainer", {}).items() if k not in FREE_IN_TRAINER}
    kept["data"] = identity.apart_from_place(config.get("data", {}))
    return kept
