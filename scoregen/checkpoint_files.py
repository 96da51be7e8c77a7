r"""The files of a checkpoint: read, checked, and which checkpoint of a run is the last whole one.

"Whole" means read and checked: state.json holds the SHA-256 of every other file and of itself.
"""

import fnmatch
import functools
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scoregen.checkpoint_shards import PATTERN, shard_files
from scoregen.errors import UserError, absent
from scoregen.foreign import read_bytes, read_yaml
from scoregen.parallel import say_once
from scoregen.remote import fetched, is_url
from scoregen.storage import digest, write_json

FORMAT = "scoregen-checkpoint-3"
OPTIONAL = ("powers.safetensors",)  # see `scoregen.averages`
FILES = ("config.yaml", "model.safetensors", "ema.safetensors", "optimizer.safetensors")
_MOST_STATE = 2**26
_COUNTS = ("step", "skipped", "skipped_in_a_row")


def write_state(folder: Path, state: Mapping[str, Any]) -> Path:
    r"""Writes state.json, the last file of a checkpoint: plain data, and the digests of the other files."""
    names = [*FILES, *OPTIONAL, *shard_files(folder)]
    files = {name: digest(folder / name) for name in names if (folder / name).exists()}
    state = {"format": FORMAT, **state, "files": files}
    return write_json(folder / "state.json", state | {"sha256": _own_digest(state)})


def read_state(folder: Path) -> dict[str, Any]:
    r"""state.json of a checkpoint, checked.

    Raises:
        UserError: it is missing or damaged, or of another format.
    """
    path = folder / "state.json"
    try:
        state = json.loads(read_bytes(path, _MOST_STATE))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else state
        raise UserError(f"checkpoint: '{folder}' has format {found!r:.60}, this version reads '{FORMAT}'.")
    for key in _COUNTS:
        value = state.get(key)
        if type(value) is not int or value < 0:
            raise _damaged(path, f"{key} must be a whole number >= 0, got {value!r:.60}")
    for key in ("optimizer", "files"):
        if not isinstance(state.get(key), dict):
            raise _damaged(path, f"{key} must be a mapping, got {state.get(key)!r:.60}")
    if state.get("sha256") != _own_digest(state):
        raise _damaged(path, "its content is not what was written")
    return state


def read_config(folder: Path) -> dict[str, Any]:
    r"""config.yaml of a checkpoint or a run folder, as plain data.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / "config.yaml"
    try:
        config = read_yaml(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(config, dict) or "model" not in config:
        raise UserError(f"checkpoint: '{path}' must be a mapping with 'model'. Use an earlier checkpoint.")
    return config


def verify(folder: Path, names: Iterable[str] | None = None) -> None:
    r"""Compares files of a checkpoint with the digests in its state.json.

    Args:
        folder: the checkpoint. names: names of files; None: all that a checkpoint of its kind has.

    Raises:
        UserError: one of them is missing or is not what was written.
    """
    files = read_state(folder)["files"]
    for name in _expected(files) if names is None else names:
        path = folder / name
        try:
            found = _digest(path)
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        if files.get(name) != found:
            raise _damaged(path, "its content is not what was written")


def _expected(files: Mapping[str, str]) -> list[str]:
    shards = [name for name in files if fnmatch.fnmatch(name, PATTERN) and Path(name).name == name]
    return ["config.yaml", *shards] if shards else [*FILES, *(name for name in OPTIONAL if name in files)]


def damage(folder: Path) -> str | None:
    r"""What is wrong with a checkpoint, or None for a whole one."""
    try:
        verify(folder)
        read_config(folder)
    except UserError as error:
        return str(error).removeprefix("checkpoint: ")
    return None


def last_whole(checkpoints: Path) -> Path | None:
    r"""The last checkpoint of a run that is whole; says on standard error what it passes over.

    Args:
        checkpoints: the folder `checkpoints` of the run.

    Returns:
        Its folder (not the link `last`), or None where there is none.
    """
    there, passed = newest_first(checkpoints), ""
    for folder in there:
        wrong = damage(folder)
        if wrong is None:
            if passed:
                say_once(f"checkpoint: {passed} '{folder}' is used in its place.")
            return folder
        passed = passed or wrong.removesuffix("Use an earlier checkpoint.").rstrip()
    # a training that is going on has written a new one and deleted what was looked at
    return None if newest_first(checkpoints) == there else last_whole(checkpoints)


def newest_first(checkpoints: Path) -> list[Path]:
    r"""The checkpoints of a run, whole or not: what `last` means, then the others from the last step down."""
    last = checkpoints / "last"
    # a link names one of the others; a copy of a run that followed links has a folder in its place
    first = [checkpoints / Path(os.readlink(last)).name] if last.is_symlink() else [last] if last.is_dir() else []
    steps = [path for path in checkpoints.glob("step_*") if path.name.removeprefix("step_").isdigit()]
    steps.sort(key=lambda path: int(path.name.removeprefix("step_")), reverse=True)
    return list(dict.fromkeys([*first, *steps]))


def find(path: Path | str, name: str = "checkpoint") -> Path:
    r"""The checkpoint folder that a path means: itself, or the last whole one of a run folder.

    Args:
        path: a checkpoint folder or a run folder, or the URL of one, of which a copy is made.
        name: what the path is called in messages.

    Raises:
        UserError: it does not exist or is no checkpoint, or none of the run is whole.
    """
    if is_url(path):
        return fetched(str(path), name)
    path = Path(path)
    if not path.exists():
        raise UserError(f"{name}: {absent(path)}")
    if (path / "state.json").is_file():
        return path
    for checkpoints in (path / "checkpoints", path):
        there = newest_first(checkpoints)
        if not there:
            continue
        whole = last_whole(checkpoints)
        if whole is None:
            raise UserError(f"{name}: no checkpoint of '{path}' is whole: {damage(there[0])}")
        return whole
    raise UserError(
        f"{name}: '{path}' is not a checkpoint of scoregen (it has no state.json and no checkpoints/last). Give "
        f"{name}=outputs/.../checkpoints/last, or the run folder."
    )


def point_last(folder: Path) -> None:
    r"""Makes `last` beside the checkpoint a link to it, atomically."""
    last = folder.parent / "last"
    if last.is_dir() and not last.is_symlink():  # in a copy of a run that followed links
        own = last.with_name(f"step_{read_state(last)['step']:08d}") if damage(last) is None else None
        shutil.rmtree(last) if own is None or own.exists() else os.replace(last, own)
    link = folder.parent / ".last.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, last)


def _own_digest(state: Mapping[str, Any]) -> str:
    text = json.dumps({key: value for key, value in state.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


_YOUNG = 2_000_000_000  # ns: a file may change again within a tick of the clock that stamps it


def _digest(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for a writer
        raise ValueError("it is not a regular file")
    if time.time_ns() - status.st_mtime_ns < _YOUNG:
        return digest(path)
    return _digest_of(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest_of(path: Path, *_: int) -> str:
    r"""Kept as long as the file is the same, since several parts of a job ask."""
    return digest(path)


def _damaged(path: Path, reason: str) -> UserError:
    reason = " ".join(reason.split())[:300]
    return UserError(f"checkpoint: '{path}' is missing or damaged ({reason}). Use an earlier checkpoint.")
