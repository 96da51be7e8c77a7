r"""The run folder: whether it is free, what resuming means, and what of a run may not change when it goes on."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scoregen.checkpoint import find, read_config
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
            the run.
    """
    present = (folder / "config.yaml").exists()
    if resume is None:
        if present:
            raise UserError(
                f"hydra.run.dir: '{folder}' holds another run; give trainer.resume=auto to continue it or another "
                f"hydra.run.dir."
            )
        return None
    if resume != "auto":
        checkpoint = find(resume, "trainer.resume").resolve()
        if present and folder.resolve() not in checkpoint.parents:
            raise UserError(
                f"hydra.run.dir: '{folder}' holds another run than the checkpoint '{resume}'; give a new folder."
            )
        compare(read_config(checkpoint), config, checkpoint)
        return checkpoint
    if not present:
        return None
    compare(read_config(folder), config, folder)
    last = folder / "checkpoints" / "last"
    if last.exists():
        return last.resolve()
    newest = max((folder / "checkpoints").glob("step_*"), default=None)  # a copy of a run may have lost the link
    return None if newest is None else newest.resolve()


def write_config(folder: Path, config: dict[str, Any]) -> None:
    r"""Writes config.yaml, atomically."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".config.partial"
    partial.write_text(yaml.safe_dump(config, sort_keys=False))
    os.replace(partial, folder / "config.yaml")


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
