r"""Reading text that came from elsewhere, at a bounded cost.

YAML of 600 bytes can mean 9^9 nodes or a node that contains itself, and a name can mean a pipe or an endless device. So
only regular files are opened, bytes, depth and nodes are bounded, and aliases are refused.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MOST_BYTES, MOST_DEPTH, MOST_NODES, LONGEST = 2**20, 32, 20_000, 2**12


def read_bytes(path: Path, most: int) -> bytes:
    r"""The content of a regular file.

    Raises:
        OSError: it cannot be read. ValueError: it is a pipe, a device or another special file, or has more than `most`
            bytes.
    """
    # a pipe without a writer would wait for one
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return content


def read_yaml(path: Path) -> Any:
    r"""Plain data of a YAML file: no aliases, and bounds on bytes, depth, nodes and the length of a text.

    Raises:
        OSError: it cannot be read. ValueError: it is no such file.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = read_bytes(path, MOST_BYTES).decode()
    try:
        _check(yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)  # a safe loader
    except (yaml.YAMLError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error


def _check(events: Iterable[Any]) -> None:
    r"""Refuses aliases and bounds the nodes, before anything is built of them."""
    import yaml

    depth = nodes = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias, *{event.anchor}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep")
        if nodes > MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES} nodes")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST:
            raise ValueError(f"it has a text of more than {LONGEST} characters")
