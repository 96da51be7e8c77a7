r"""The run folder: whether it is free, what resuming means, and what of a run may not change when it goes on."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scoregen.checkpoint import find, read_config, read_state
from scoregen.errors import UserError

# What a resumed run may do differently without ceasing to be the same run.
FREE = ("logger", "sampler", "preview", "early_stopping", "quality", "accuracy", "few_calls", "lora_export", "dry_run")
FREE_IN_TRAINER = (
    "resume",
    "steps",
    "log_every",
    "checkpoint_every",
    "keep_last",
    "keep_every",
    "workers",
    "accumulate",
)


def prepare(folder: Path, config: dict[str, Any], resume: str | None) -> Path | None:
    r"""Decides where a run starts, before any work.

    Args:
        folder: the run folder. config: the resolved configuration.
        resume: None for a new run; "auto" to go on in `folder` if it holds a run; else the checkpoint to go on from.

    Returns:
        The checkpoint to go on from, or None for the first step.

    Raises:
        UserError: the folder holds another run, the checkpoint is missing, or the configuration differs from that of
            the run, or the run has done more steps than are asked for.
    """
    start = resume_point(folder, resume)
    present = (folder / "config.yaml").exists() or any(folder.glob("checkpoints/*/state.json"))
    if present and resume is None:
        raise UserError(
            f"hydra.run.dir: '{folder}' holds another run; give trainer.resume=auto to continue it or another "
            f"hydra.run.dir."
        )
    if present and start is not None and folder.resolve() not in start.parents:
        raise UserError(
            f"hydra.run.dir: '{folder}' holds another run than the checkpoint '{resume}'; give a new folder."
        )
    if start is not None:
        compare(read_config(start), config, start)
        done, asked = read_state(start)["step"], config["trainer"]["steps"]
        if done > asked:
            raise UserError(
                f"trainer.steps: the run in '{start}' has {done} already, asked for are {asked}; give more."
            )
    elif present:
        compare(read_config(folder), config, folder)
    return start


def resume_point(folder: Path, resume: str | None) -> Path | None:
    r"""The checkpoint that `resume` means in a run folder, or None for the first step."""
    if resume is None:
        return None
    if resume != "auto":
        return find(resume, "trainer.resume").resolve()
    checkpoints = folder.resolve() / "checkpoints"  # which may lie elsewhere; what is in it is of this folder
    last = checkpoints / "last"
    if last.is_symlink() and last.exists():
        return checkpoints / last.resolve().name
    # a copy of a run may have lost the link, or have a folder in its place
    found = [path.parent for path in checkpoints.glob("*/state.json") if path.parent.name.startswith(("step_", "last"))]
    return max(found, key=lambda path: (read_state(path)["step"], path.name), default=None)


def inherit(folder: Path, start: Path | None) -> None:
    r"""A run that goes on in a new folder takes along what the old one had measured, and the best that it had kept."""
    if start is None or start.parent.name != "checkpoints" or folder.resolve() in start.parents:
        return
    run, step = start.parent.parent, read_state(start)["step"]
    best = [p.parent for p in run.glob("checkpoints/best*/state.json") if read_state(p.parent)["step"] <= step]
    for old in (*run.glob("metrics.jsonl"), *best):
        new, partial = folder / old.relative_to(run), folder / f".{old.name}.partial"
        shutil.copytree(old, partial, dirs_exist_ok=True) if old.is_dir() else shutil.copy(old, partial)
        new.parent.mkdir(exist_ok=True)
        os.replace(partial, new)


def write_config(folder: Path, config: dict[str, Any], start: Path | None = None) -> None:
    r"""Writes config.yaml, atomically; a new run (no `start`) does not take the place of another one.

    Raises:
        UserError: another run has begun in the folder.
    """
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".config.{os.getpid()}.partial"
    partial.write_text(yaml.safe_dump(config, sort_keys=False))
    place = folder / "config.yaml"
    if start is None and not (config["trainer"].get("resume") and place.exists()):
        try:
            place.open("x").close()
        except FileExistsError as error:
            partial.unlink()
            raise UserError(f"hydra.run.dir: another run has just begun in '{folder}'; give another one.") from error
    os.replace(partial, place)


def compare(old: dict[str, Any], new: dict[str, Any], where: Path) -> None:
    r"""Refuses to resume with a configuration that would make another run of it."""
    old_items, new_items = dict(_flat(_essential(old))), dict(_flat(_essential(new)))
    for key in sorted(old_items.keys() | new_items.keys()):
        if old_items.get(key) != new_items.get(key):
            raise UserError(
                f"{key}: the run in '{where}' has {old_items.get(key)!r}, asked for is {new_items.get(key)!r}; a "
                f"resumed run keeps "
                "its configuration (give the old value, or start a new run with another hydra.run.dir)."
            )


def _essential(config: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in config.items() if k not in FREE}
    kept["trainer"] = {k: v for k, v in config.get("trainer", {}).items() if k not in FREE_IN_TRAINER}
    kept["data"] = {k: v for k, v in config.get("data", {}).items() if k not in ("root", "download")}
    return kept


def _flat(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f"{where}.{key}" if where else str(key))
    else:
        yield where, list(node) if isinstance(node, tuple) else node
