r"""Where the samples of tar files are: an index of offsets, made from the headers alone.

Members of one name up to its first dot are one sample: `dir/0001.png` and `dir/0001.cls` are the picture and the class
of sample `dir/0001` (the webdataset layout). Members need not be neighbours.
"""

import json
import os
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from scoregen.data.files import IMAGE_SUFFIXES
from scoregen.data.tars import Member, members, open_regular
from scoregen.errors import UserError
from scoregen.parallel import say_once
from scoregen.progress import progress

PICTURES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
_MOST_PICTURE, _MOST_LABEL = 2**28, 2**20  # bytes


@dataclass(frozen=True)
class Asked:
    r"""What a sample is made of.

    Args:
        pictures: endings of the picture. label: ending of what holds the class or text. fields: the way in its JSON.
        required: whether every sample must have a label; otherwise all have one or none has.
    """

    pictures: tuple[str, ...]
    label: str
    fields: tuple[str, ...]
    required: bool

    @classmethod
    def of(cls, image: str | None, label: str | None, where: str) -> "Asked":
        r"""From `data.image` and the key `where`, `data.label` or `data.caption`."""
        ending, *fields = (label or "cls").lstrip(".").split(".")
        if "" in (ending, *fields) or (ending.lower() == "json") != bool(fields):
            raise UserError(
                f"{where}: must be the ending of a member, such as cls or txt, or a field of a JSON member, such as "
                f"json.label, got {label!r}."
            )
        pictures = (image.lstrip(".").lower(),) if image else PICTURES
        return cls(pictures, ending.lower(), tuple(fields), label is not None)


@dataclass(frozen=True)
class Index:
    r"""The samples of tar files.

    Args:
        files: the tar files. digests: SHA-256 of the headers of each.
        shard: (N,) the number of the file of each picture. offset, size: (N,) of the picture in it, in bytes.
        values: a number or a text for each sample; None for each where they have no labels.
    """

    files: tuple[Path, ...]
    digests: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    values: list[object]


def make_index(files: Sequence[Path], asked: Asked, where: str = "data.path") -> Index:
    r"""The index of tar files.

    Raises:
        UserError: a file is damaged; a sample has two pictures or no label, or there are no pictures.
    """
    found = [_scan(file, asked, where) for file in progress(files, description="index", unit="file")]
    others = sum((one.others for one in found), Counter[str]())
    count = sum(len(one.keys) for one in found)
    if not count:
        raise UserError(
            f"{where}: no pictures ({', '.join(asked.pictures)}) in {len(files)} tar files under '{files[0].parent}'; "
            f"they hold {_counts(others)}. Name their ending: data.image=..."
        )
    if others:
        say_once(f"{where}: members that are neither pictures nor labels are left out: {_counts(others)}.")
    return Index(
        tuple(files),
        tuple(one.digest for one in found),
        np.repeat(np.arange(len(files), dtype=np.int32), [len(one.keys) for one in found]),
        np.concatenate([np.frombuffer(one.offset, np.int64) for one in found]),
        np.concatenate([np.frombuffer(one.size, np.int64) for one in found]),
        [value for one in found for value in one.values],
    )


def _counts(others: Counter[str]) -> str:
    listed = ", ".join(f"{count} of .{ending[:40]}" for ending, count in others.most_common(8))
    return listed or "nothing"


@dataclass
class _Samples:
    r"""The samples of one tar file, in the order in which their pictures come."""

    keys: dict[str, int] = field(default_factory=dict)
    offset: "array[int]" = field(default_factory=lambda: array("q"))
    size: "array[int]" = field(default_factory=lambda: array("q"))
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    values: list[object] = field(default_factory=list)
    digest: str = ""


def _scan(file: Path, asked: Asked, where: str) -> _Samples:
    found, headers = _Samples(), sha256()
    for member in members(file, where, headers.update):
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        if stem:  # a hidden file, such as the ._0001.png of macOS, has none
            _put(found, f"{folder}/{stem}", ending.lower(), member, file, asked, where)
    found.digest = headers.hexdigest()
    found.values = _values(found, file, asked, where)
    return found


def _put(found: _Samples, key: str, ending: str, member: Member, file: Path, asked: Asked, where: str) -> None:
    if ending in asked.pictures:
        if key in found.keys:
            raise UserError(
                f"{where}: a sample must have one picture, but '{file}' has another one of '{key}', '{member.name}'. "
                "Name the ending of the pictures: data.image=..."
            )
        _check_size(member, _MOST_PICTURE, file, where)
        found.keys[key] = len(found.keys)
        found.offset.append(member.offset)
        found.size.append(member.size)
    elif ending == asked.label:
        _check_size(member, _MOST_LABEL, file, where)
        found.labels[key] = member.offset, member.size
    else:
        found.others[ending] += 1


def _check_size(member: Member, most: int, file: Path, where: str) -> None:
    if member.size > most:
        raise UserError(
            f"{where}: '{member.name}' in '{file}' has {member.size} bytes, and {most} are allowed. Write the archive "
            "without it."
        )


def _values(found: _Samples, file: Path, asked: Asked, where: str) -> list[object]:
    r"""What the label of each sample says; None for each where no sample has one and none is required."""
    if not found.labels and not asked.required:
        return [None] * len(found.keys)
    without = [key for key in found.keys if key not in found.labels]
    if without:
        raise UserError(
            f"data.label: {len(without)} of the {len(found.keys)} samples in '{file}' have no .{asked.label}, the "
            f"first is '{without[0].lstrip('/')}'. Add them, or name another member: data.label=json.FIELD."
        )
    lonely = len(found.labels.keys() - found.keys.keys())
    if lonely:
        found.others[f"{asked.label} without a picture"] += lonely
    descriptor = open_regular(file, where)
    try:
        return [
            _value(os.pread(descriptor, *reversed(found.labels[key])), key.lstrip("/"), file, asked)
            for key in found.keys
        ]
    finally:
        os.close(descriptor)


def _value(content: bytes, key: str, file: Path, asked: Asked) -> object:
    r"""The text of a label, or the value of the field that was asked for."""
    name = f"data.label: '{key}.{asked.label}' in '{file}'"
    try:
        text = content.decode("utf-8-sig")
        value: object = json.loads(text) if asked.fields else text.strip()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} cannot be read ({str(error)[:80]}). Repair or remove it.") from error
    for name_of_field in asked.fields:
        if not isinstance(value, dict) or name_of_field not in value:
            raise UserError(f"{name} has no field '{'.'.join(asked.fields)}'. Name another one: data.label=json.FIELD.")
        value = value[name_of_field]
    return value
