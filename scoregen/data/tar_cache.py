r"""The index of many samples of tar files, kept between runs: good while size and time of change of each file stay.

A file may be replaced by one of the same size and time; so some headers, evenly spread, are read again and compared.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import IO

import numpy as np

from scoregen.data.files import read_archive
from scoregen.data.index import cache_folder
from scoregen.data.pictures import spread
from scoregen.data.tar_index import Asked, Index, make_index
from scoregen.data.tars import BLOCK
from scoregen.storage import write_atomically

_MANY = 10_000  # samples from which on an index is kept
_SETTLED = 10**10  # nanoseconds after which the time of change of a file tells every later change
_PROBES = 64  # headers that are compared


def index_of(files: Sequence[Path], asked: Asked) -> Index:
    r"""The index of tar files: the one that was kept, where they have not changed, or a new one.

    Raises:
        UserError: as `make_index`.
    """
    paths = [os.path.realpath(file) for file in files]
    key = hashlib.sha256(json.dumps([paths, astuple(asked)]).encode()).hexdigest()[:24]
    kept = cache_folder() / "shards" / f"{key}.npz"
    found = _read(kept, files)
    if found is None:
        found, states = make_index(files, asked), _states(files)
        if len(found.offset) >= _MANY and max(changed for _, changed in states) < time.time_ns() - _SETTLED:
            _write(kept, found, states)
    return found


def _states(files: Sequence[Path]) -> list[list[int]]:
    return [[state.st_size, state.st_mtime_ns] for state in map(os.stat, files)]


def _probe(index: Index) -> str:
    r"""A digest of some of the headers."""
    content = hashlib.sha256()
    for place in spread(len(index.offset), _PROBES):
        with index.files[int(index.shard[place])].open("rb") as file:
            file.seek(int(index.offset[place]) - BLOCK)
            content.update(file.read(BLOCK))
    return content.hexdigest()


def _write(kept: Path, index: Index, states: list[list[int]]) -> None:
    told = {"states": states, "probe": _probe(index), "digests": index.digests, "values": index.values}
    text, places = np.frombuffer(json.dumps(told).encode(), np.uint8), (index.shard, index.offset, index.size)
    with suppress(OSError):  # a cache: the files are read again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda opened: _save(opened, text, places))


def _save(opened: IO[bytes], told: np.ndarray, places: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    shard, offset, size = places
    np.savez(opened, told=told, shard=shard, offset=offset, size=size)


def _read(kept: Path, files: Sequence[Path]) -> Index | None:
    r"""What was kept, unless a file has changed since or what was kept is damaged."""
    if not kept.is_file():
        return None
    try:
        arrays = read_archive(kept, "cache")
        told = json.loads(arrays["told"].tobytes())
        shard, offset, size = arrays["shard"], arrays["offset"], arrays["size"]
        index = Index(tuple(files), tuple(told["digests"]), shard, offset, size, told["values"])
        same = told["states"] == _states(files) and len(shard) == len(offset) == len(size) == len(index.values)
        return index if same and told["probe"] == _probe(index) else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
