r"""The names of the files of a folder, and nothing else of them: an index of bytes, not of objects.

A name costs its own length and 8 bytes. The index of many files is kept in a cache folder, and is good while no folder
has changed: the time of change of a folder tells whether a name was added or removed.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload
from zipfile import BadZipFile

import numpy as np

from scoregen.errors import UserError, listed
from scoregen.parallel import say_once
from scoregen.storage import write_atomically

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
TEXTS = (".txt", ".jsonl", ".json", ".csv", ".md")  # beside images they say something about them
_MANY = 10_000  # files from which on an index is kept
_SETTLED = 10**10  # nanoseconds after which the time of change of a folder tells every later change


class Files(Sequence[Path]):
    r"""The paths of files of a folder, each made when it is asked for.

    Args:
        folder: that they are in.
        joined: their names in it, with "/" between the parts, as bytes one after another.
        ends: (N,) where each name ends.
    """

    def __init__(self, folder: Path, joined: bytes, ends: np.ndarray) -> None:
        self.folder, self.joined, self.ends = folder, joined, ends

    @classmethod
    def of(cls, folder: Path, names: Sequence[str]) -> "Files":
        r"""From their names."""
        encoded = [os.fsencode(name) for name in names]
        return cls(folder, b"".join(encoded), np.cumsum([len(name) for name in encoded], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, place: int) -> str:
        r"""The name of a file in the folder."""
        return os.fsdecode(self.joined[int(self.ends[place - 1]) if place else 0 : int(self.ends[place])])

    @property
    def names(self) -> list[str]:
        r"""All names."""
        return [self.name(place) for place in range(len(self))]

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> list[Path]: ...
    def __getitem__(self, place: int | slice) -> Path | list[Path]:
        if isinstance(place, slice):
            return [self[k] for k in range(len(self))[place]]
        return self.folder / self.name(range(len(self))[place])


@dataclass
class _Found:
    r"""What a scan has found: names, endings of what was left out, folders without files, and all with their times."""

    names: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)


def files_of(folder: Path, suffixes: Collection[str], where: str = "data.path", kind: str = "images") -> Files:
    r"""The files of a folder with these endings, searched recursively, in the order of their names.

        Hidden files and folders are left out; links are followed. Files of other kinds, but for texts, and folders
        without files are told on standard error.

    Raises:
        UserError: there are none.
    """
    files, others, empty = _indexed(folder, sorted(suffixes))
    found = ", ".join(f"{count} of {ending}" for ending, count in sorted(others.items()))
    if not len(files):
        raise UserError(
            f"{where}: no {kind} ({', '.join(suffixes)}) under '{folder}'."
            + (f" It has {found}: convert them." if found else "")
        )
    if others:
        say_once(f"{where}: files under '{folder}' that are no {kind} ({', '.join(suffixes)}) are left out: {found}.")
    if empty:
        names = listed([f"'{name}'" for name in empty])
        say_once(f"{where}: folders under '{folder}' without {kind} are left out: {names}.")
    return files


def _indexed(folder: Path, suffixes: Sequence[str]) -> tuple[Files, dict[str, int], list[str]]:
    key = hashlib.sha256(json.dumps([os.path.realpath(folder), suffixes]).encode()).hexdigest()[:24]
    kept = cache_folder() / "index" / f"{key}.npz"
    if (known := _read(kept, folder)) is not None:
        return known
    found = _scan(folder, frozenset(suffixes))
    files = Files.of(folder, found.names)
    if len(files) >= _MANY and max(found.folders.values()) < time.time_ns() - _SETTLED:
        _write(kept, files, found)
    return files, dict(found.others), found.empty


def _scan(folder: Path, suffixes: frozenset[str]) -> _Found:
    found, todo = _Found(), [("", os.fspath(folder), frozenset[tuple[int, int]]())]
    while todo:
        prefix, path, above = todo.pop()
        state = os.stat(path)
        if (place := (state.st_dev, state.st_ino)) in above:  # a link to a folder that it lies in
            continue
        found.folders[prefix] = state.st_mtime_ns
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                if entry.is_dir():
                    todo.append((f"{prefix}{entry.name}/", entry.path, above | {place}))
                elif (ending := os.path.splitext(entry.name)[1].lower()) in suffixes:
                    found.names.append(prefix + entry.name)
                elif ending not in TEXTS:
                    found.others[ending or "no suffix"] += 1
    found.names.sort(key=lambda name: name.split("/"))
    used = {name.rpartition("/")[0] for name in found.names}
    used |= {path[:end] for path in used for end, sign in enumerate(path) if sign == "/"} | {""}
    bare = {prefix[:-1] for prefix in found.folders} - used
    found.empty = sorted(path for path in bare if path.rpartition("/")[0] not in bare)
    return found


def _write(kept: Path, files: Files, found: _Found) -> None:
    told = json.dumps({"others": found.others, "empty": found.empty, "folders": found.folders}).encode()
    joined, text = (np.frombuffer(content, np.uint8) for content in (files.joined, told))
    with suppress(OSError):  # a cache: the folder is read again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda opened: np.savez(opened, joined=joined, ends=files.ends, told=text))


def _read(kept: Path, folder: Path) -> tuple[Files, dict[str, int], list[str]] | None:
    r"""What was kept, unless a folder has changed since."""
    if not kept.is_file():
        return None
    try:
        # an open file, since NumPy does not close a damaged one that it opened itself
        with kept.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            joined, ends, told = arrays["joined"].tobytes(), arrays["ends"], json.loads(arrays["told"].tobytes())
        same = all(os.stat(folder / name).st_mtime_ns == changed for name, changed in told["folders"].items())
        others, empty = told["others"], told["empty"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # damaged, or a folder is gone
        return None
    return (Files(folder, joined, ends), others, empty) if same and ends[-1] == len(joined) else None


def cache_folder() -> Path:
    r"""Where what can be made again is kept between runs: $XDG_CACHE_HOME/scoregen, or ~/.cache/scoregen."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "scoregen").expanduser()
