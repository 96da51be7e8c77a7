r"""Files that are whole or absent, and folders with a record of what they hold.

A file or folder is written beside its place, brought to the disk and renamed, so that neither a killed process nor a
power cut leaves half of it. A folder that a job writes holds a record, plain data of which its results are a function:
the job goes on in a folder with the same record and refuses any other one.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from scoregen.errors import UserError

RECORD = "job.json"


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    r"""Writes a file beside its place and renames it; `write(file)` fills it. Its folder is made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path


def write_text(path: Path, text: str) -> Path:
    r"""Writes a text file, whole or not at all."""
    return write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> Path:
    r"""Writes plain data as JSON, whole or not at all."""
    return write_text(path, json.dumps(value, indent=1))


def write_yaml(path: Path, value: Mapping[str, Any]) -> Path:
    r"""Writes plain data as YAML without aliases, whole or not at all."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # the same list in two places is written twice
            return True

    return write_text(path, yaml.dump(dict(value), Dumper=Plain, sort_keys=False))


def put_folder(partial: Path, folder: Path) -> None:
    r"""Renames a finished folder into place; one that stands there is out of the way only for the time of a rename."""
    for path in (*partial.iterdir(), partial):
        sync(path)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    r"""Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    r"""SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim(out: Path, record: Mapping[str, Any], known: Iterable[str] = (), free: Iterable[str] = ()) -> None:
    r"""Refuses a folder that holds the results of another job; nothing is written.

    Args:
        out: the folder, which need not exist. record: plain data of which the results are a function.
        known: names of what the job writes there: found without a record, they are of something else.
        free: keys of the record that may differ.

    Raises:
        UserError: the record differs, is damaged, or is missing beside such names.
    """
    path = out / RECORD
    if not path.exists():
        strange = sorted(name for name in known if (out / name).exists())
        if strange:
            raise UserError(
                f"out: '{out}' contains '{strange[0]}' that this job did not write ({RECORD} is missing). Choose "
                "another out."
            )
        return
    old, new = ({k: v for k, v in r.items() if k not in free} for r in (read_record(out), as_json(record)))
    found = difference(old, new)
    if found is not None:
        name, before, now = found
        raise UserError(
            f"out: '{out}' holds other results: {name} was {short(before)}, now {short(now)}. Choose another out."
        )


def read_record(out: Path) -> dict[str, Any]:
    r"""The record of a folder.

    Raises:
        UserError: it is missing or damaged.
    """
    path = out / RECORD
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"out: '{path}' is missing or damaged ({error}). Choose another out.") from error
    if not isinstance(found, dict):
        raise UserError(f"out: '{path}' is damaged: it must hold a mapping. Choose another out.")
    return found


def write_record(out: Path, record: Mapping[str, Any]) -> Path:
    r"""Writes the record of a folder."""
    return write_json(out / RECORD, as_json(record))


def difference(old: Any, new: Any) -> tuple[str, Any, Any] | None:
    r"""The first value in which two records differ: its dotted name, before and now; None where they are the same."""
    before, now = dict(flatten(old)), dict(flatten(new))
    for name in (*now, *before):
        if before.get(name) != now.get(name) or (name in before) != (name in now):
            return name, before.get(name), now.get(name)
    return None


def flatten(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    r"""(dotted name, value) of the leaves of nested mappings."""
    if isinstance(node, Mapping) and (node or not where):
        for key, value in node.items():
            yield from flatten(value, f"{where}.{key}" if where else str(key))
    else:
        yield where, list(node) if isinstance(node, tuple) else node


def short(value: Any) -> str:
    r"""A value in a message: 60 characters at most."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def as_json(value: Any) -> Any:
    r"""Plain data as JSON gives them back: lists for tuples, texts for keys, "inf" for infinity."""
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value
