r"""What data are, apart from where they lie: a fingerprint, and the entries that tell what has changed.

Of files it sees the names within their folder, the sizes, and content: of a file of 64 KiB or less all of it, of a
larger one blocks of 4 KiB, evenly spread; 8 MiB together, or 16 blocks a file where that is more. Of more than 512
files it reads 512, evenly spread over their names. So what it cannot see is a change between the blocks of a large
file, or inside one of many files that were not read, where the size stays the same.
"""

import gzip
import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from scoregen.data.parts import is_path
from scoregen.errors import UserError
from scoregen.storage import write_atomically

Entries = Iterable[tuple[str, str]]  # (name, what tells it from others), one at a time: there may be millions
ENTRIES = "data.json.gz"  # beside the record of a run or a job
NO_FILE = "*"  # ends the name of an entry of what is no file
_NO_CONTENT = (
    "path",
    "root",
    "download",
    "max_pixels",
    "max_bytes",
    "max_corrupt",
)  # arguments of a source that change no sample
_BLOCK = 2**12
_SMALL, _BUDGET, _MOST_READ = 2**16, 2**23, 512
_MOST_ENTRIES, _MOST_BYTES = 100_000, 2**26


def of_files(folder: Path, names: Iterable[str], count: int) -> Entries:
    r"""The entry of each file, by its name: size, and a digest of content where that was read.

    Args:
        folder: that they are in.
        names: names of the files in it, in an order that does not depend on where the folder lies. count: of the names.
    """
    read, blocks = min(count, _MOST_READ), max(_SMALL // _BLOCK, _BUDGET // _BLOCK // max(1, count))
    for k, name in enumerate(names):
        path = os.path.join(folder, name)
        size = os.stat(path).st_size
        looked = k * read // count != (k - 1) * read // count  # evenly spread, the first one too
        yield name, f"{size} {_content(path, size, blocks)}" if looked else f"{size}"


def _content(path: str, size: int, blocks: int) -> str:
    content = hashlib.blake2b(digest_size=8)
    with open(path, "rb") as opened:
        if size <= blocks * _BLOCK:
            content.update(opened.read())
        else:
            for k in range(blocks):
                opened.seek(k * (size - _BLOCK) // (blocks - 1))
                content.update(opened.read(_BLOCK))
    return content.hexdigest()


def fingerprint(entries: Entries) -> str:
    r"""16 hexadecimal digits that change with the entries and their order."""
    content = hashlib.sha256()
    for entry in entries:
        content.update(json.dumps(entry).encode())
    return content.hexdigest()[:16]


def changes(before: Mapping[str, str], entries: Entries) -> str:
    r"""What has changed, in words: how many files, and the first of them.

    Args:
        before: the entries of then, none where they are not known. entries: those of now.
    """
    old, new = ({name: x[name] for name in x if not name.endswith(NO_FILE)} for x in (before, dict(entries)))
    kinds = {
        "changed": [name for name in sorted(new) if name in old and old[name] != new[name]],
        "new": [name for name in sorted(new) if name not in old],
        "missing": [name for name in sorted(old) if name not in new],
    }
    found = [f"{len(names):,} {kind} (first: '{names[0]}')" for kind, names in kinds.items() if names]
    return f"of {len(old):,} files, {', '.join(found)}" if found and old else "samples or labels differ"


def apart_from_place(node: Mapping[str, Any]) -> dict[str, Any]:
    r"""The arguments of a source without those that say where the data lie, which the fingerprint stands for."""
    kept = {key: value for key, value in node.items() if key not in _NO_CONTENT}
    return kept | {key: "PATH" for key in ("test", "validation") if is_path(kept.get(key))}


@dataclass(frozen=True)
class Known:
    r"""What the configuration of a checkpoint says of the data of its training.

    Args:
        range: lowest and highest value of their units; None where there is none, (0, 1) where nothing is said.
        classes: their names, or None.
    """

    range: tuple[float, float] | None = (0.0, 1.0)
    classes: tuple[str, ...] | None = None


def known(config: Mapping[str, Any], where: str) -> Known:
    r"""What the configuration of a checkpoint, which may come from elsewhere, says of the data of its training.

    Raises:
        UserError: it says something that is no range, or no names.
    """
    facts = config.get("dataset")
    if facts is None:
        return Known()
    ends, names = (facts.get(key) if isinstance(facts, dict) else facts for key in ("range", "classes"))
    numbers = isinstance(ends, list) and len(ends) == 2 and all(type(end) in (int, float) for end in ends)
    if ends is not None and not (numbers and -math.inf < ends[0] < ends[1]):
        raise UserError(f"checkpoint: 'dataset.range' of {where} must be two numbers, got {ends!r:.60}.")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError(f"checkpoint: 'dataset.classes' of {where} must be names, got {names!r:.60}.")
    return Known(None if ends is None else (float(ends[0]), float(ends[1])), None if names is None else tuple(names))


def write_entries(folder: Path, entries: Entries) -> None:
    r"""Keeps the entries beside a record, so that a later start can say what has changed; none of very many."""
    kept = dict(islice(entries, _MOST_ENTRIES + 1))
    if len(kept) <= _MOST_ENTRIES:
        text = json.dumps(kept).encode()
        write_atomically(folder / ENTRIES, lambda file: file.write(gzip.compress(text, mtime=0)))


def read_entries(folder: Path) -> dict[str, str]:
    r"""The entries beside a record; empty where there are none, or they are damaged."""
    try:
        with gzip.open(folder / ENTRIES) as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (OSError, EOFError, ValueError, RecursionError, zlib.error):
        return {}
    return {str(name): str(entry) for name, entry in found.items()} if isinstance(found, dict) else {}
