r"""Output of resumable commands: files that are whole or absent, folders with a record of what they hold."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from scoregen.errors import UserError


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    r"""Writes a file beside its place and renames it; `write(file)` fills it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        write(file)
    os.replace(partial, path)
    return path


def claim(out: Path, record: dict[str, Any], name: str, known: tuple[str, ...], write: bool) -> None:
    r"""Makes a folder the output of a command, or goes on with one that is; on every process.

    Args:
        out: the folder. record: plain data of which the results are a function. name: of the file that holds it.
        known: what the command writes there. write: False only looks.

    Raises:
        UserError: the folder holds such files of something else.
    """
    from scoregen.parallel import barrier, rank

    _check_empty_or_same(out, record, name, known)
    barrier()  # every process has read the record before the first one writes it
    if rank() == 0 and write:
        write_atomically(out / name, lambda file: file.write(json.dumps(record, indent=1).encode()))
    barrier()


def origin(checkpoint: Path, weights: str) -> dict[str, str]:
    r"""What tells a checkpoint from another one that stood at the same place, for a record."""
    import hashlib

    with (checkpoint / f"{weights}.safetensors").open("rb") as file:
        return {"checkpoint": str(checkpoint), "weights_sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _check_empty_or_same(out: Path, record: dict[str, Any], name: str, known: tuple[str, ...]) -> None:
    path = out / name
    if not path.exists():
        strange = sorted(k for k in known if (out / k).exists())
        if strange:
            raise UserError(
                f"out: '{out}' holds '{strange[0]}' of something else, or of an older version (no {name}); give "
                "another out."
            )
        return
    try:
        old = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"out: '{path}' is damaged ({error}); give another out.") from error
    for k, value in record.items():
        if k not in old or old[k] != value:
            name, before, now = _difference(k, old.get(k), value)
            raise UserError(f"out: '{out}' holds other results ({name} was {before!r}, now {now!r}); give another out.")


def _difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    r"""The first value that differs, and its dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(k for k in (*new, *old) if old.get(k) != new.get(k))
        return _difference(f"{name}.{key}", old.get(key), new.get(key))
    return name, old, new
