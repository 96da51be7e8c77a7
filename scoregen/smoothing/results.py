r"""Results on disk: one line of JSON for each certified or predicted input, appended as it is finished.

The first line is a header: everything that determines the results. A job continues only in a folder with the same
header. Each process writes a file of its own. A line torn by a crash is dropped, and its input is done again.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from scoregen import storage
from scoregen.errors import UserError
from scoregen.parallel import rank
from scoregen.smoothing.classifiers import Classify
from scoregen.smoothing.logits import logits_of

CERTIFICATES = "certificates"
FORMATS = {CERTIFICATES: "scoregen certificates 2", "predictions": "scoregen predictions 1"}
FORMATS |= {"attacks": "scoregen attacks 1"}


@dataclass(frozen=True)
class Run:
    r"""Results of one job: its header and its records by increasing index."""

    header: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def complete(self) -> bool:
        r"""Whether every input of the job has its record."""
        return len(self.records) == len(self.header["indices"])


def answers(classifier: Classify, batches: Iterable[Tensor]) -> str:
    r"""A hash of a classifier's answers to batches of inputs (B, *S); tells classifiers of one name apart."""
    with torch.no_grad():
        labels = torch.cat([logits_of(classifier(batch)).argmax(1) for batch in batches])
    return hashed(labels.cpu().numpy().tobytes())


def fingerprint(classifier: Classify) -> str:
    r"""A hash of a module's structure, weights, buffers and settings, or of a function's name where there are none."""
    return hashed(_told(classifier).encode())


def _told(value: Any) -> str:
    r"""An object's content as a text that is the same in each process; of foreign objects the type alone."""
    if isinstance(value, Tensor):
        content = value.detach().cpu().double().contiguous().numpy().tobytes()
        return f"{tuple(value.shape)} {value.dtype} {hashed(content)}"
    if isinstance(value, nn.Module):
        parts = {**value.state_dict(), **dict(value.named_buffers())}  # some buffers are not part of the state
        return f"{value!r} {_told(parts)} {[_settings(module) for module in value.modules()]}"
    if isinstance(value, Mapping):
        return str({str(key): _told(inner) for key, inner in value.items()})
    if isinstance(value, list | tuple):
        return str([_told(inner) for inner in value])
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__} {_settings(value) if _ours(value) else ''}"


def _ours(value: Any) -> bool:
    return type(value).__module__.startswith("scoregen.") and hasattr(value, "__dict__")


def _settings(value: Any) -> str:
    return _told({key: inner for key, inner in vars(value).items() if key[0] != "_" and key != "training"})


def hashed(content: bytes) -> str:
    r"""A short SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def hash_of_labels(labels: list[int]) -> str:
    r"""A hash of the labels of inputs, in the order of the inputs."""
    return hashed(json.dumps(labels).encode())


def read_lines(path: Path) -> tuple[dict[str, Any] | None, list[tuple[int, dict[str, Any]]]]:
    r"""The header and the records of a results file, each with the number of its line; a torn last line is left out.

    Raises:
        UserError: a line is no record, or a second header.
    """
    header, records, _ = _read(path, CERTIFICATES)
    return header, list(enumerate(records, 2))


def _read(path: Path, name: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int]:
    r"""Header, records, and the length in bytes of the complete lines."""
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    try:
        numbered = enumerate(whole.splitlines())  # the header's settings may be infinite, the numbers of records not
        lines = [json.loads(line, parse_constant=_refuse_constant if i else None) for i, line in numbered]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged inside ({error}). {_AGAIN}") from None
    if lines and not (isinstance(lines[0], dict) and lines[0].get("format") == FORMATS[name]):
        raise UserError(f"{path} is not a results file of this version, which begins with format '{FORMATS[name]}'.")
    if lines and not _numbers(lines[0].get("indices")):
        raise UserError(
            f"{path} is damaged inside (line 1 has no indices, which are different whole numbers). {_AGAIN}"
        )
    for number, record in enumerate(lines[1:], 2):
        why = _damage(record)
        if why:
            raise UserError(f"{path} is damaged inside (line {number} {why}). {_AGAIN}")
    return (lines[0] if lines else None), lines[1:], len(whole)


_AGAIN = "Move it away and repeat the command."


def _numbers(indices: Any) -> bool:
    r"""Whether these are different whole numbers."""
    return (
        isinstance(indices, list) and all(type(index) is int for index in indices) and len(set(indices)) == len(indices)
    )


def _damage(record: Any) -> str:
    r"""Why a line is no record; empty where it is one."""
    if not isinstance(record, dict) or type(record.get("index")) is not int:
        return "is a second header" if isinstance(record, dict) and "format" in record else "has no index"
    return ""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def load(folder: str | Path, name: str = CERTIFICATES) -> Run:
    r"""All results in a folder: certificates, or those of another name in `FORMATS`.

    Raises:
        FileNotFoundError: there are none.
        ValueError: files are damaged or of different jobs, or an input is there twice or none of the job.
    """
    header = None
    records: dict[int, Any] = {}
    for path in files_of(folder, name):
        found, lines, _ = _read(path, name)
        if found is None:
            continue
        if header is not None:
            _same(header, found, path)
        header = found
        _add(records, lines, found, path)
    if header is None:
        raise FileNotFoundError(f"no {name} in {folder}, which must hold {name}.jsonl.")
    return Run(header, [records[index] for index in sorted(records)])


def files_of(folder: str | Path, name: str = CERTIFICATES) -> list[Path]:
    r"""The files of results in a folder, one of each process."""
    return sorted(Path(folder).glob(f"{name}*.jsonl"))


def _add(records: dict[int, Any], lines: Iterable[Mapping[str, Any]], header: Mapping[str, Any], path: Path) -> None:
    r"""Adds the records of a file; the same record twice is harmless, two that differ are damage."""
    wanted = set(header["indices"])
    for line in lines:
        index = line["index"]
        if index not in wanted:
            raise UserError(f"{path} is damaged inside (input {index} is none of its job). Move it away.")
        if records.get(index, line) != line:
            raise UserError(f"{path} is damaged inside (input {index} has two records). Move it away.")
        records[index] = line


def _same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    found = storage.difference(*_without_names(old, new))
    if found is not None:
        name, before, now = found
        raise UserError(
            f"{path} holds results of another job: {name} was {storage.short(before)}, now {storage.short(now)}. "
            "Choose another out, or delete it."
        )


def _without_names(*headers: Mapping[str, Any]) -> list[dict[str, Any]]:
    r"""Headers without the names of data that are known by a fingerprint, since a folder may be renamed."""
    described = [header.get("description", {}) for header in headers]
    named = ("data",) if all("data_hash" in facts for facts in described) else ()
    kept = [{key: value for key, value in facts.items() if key not in named} for facts in described]
    return [{**header, "description": facts} for header, facts in zip(headers, kept, strict=True)]


class Results:
    r"""A folder of results opened for appending.

    Args:
        folder: made if missing.
        header: plain data that determine the results, with `indices`, the list of inputs.
        name: of the files, one of `FORMATS`.

    Attributes:
        done: records that the folder already holds, by index.

    Raises:
        ValueError: the folder holds another job, or another run begins it at this moment.
    """

    def __init__(self, folder: str | Path, header: Mapping[str, Any], name: str = CERTIFICATES) -> None:
        self.folder, self.name = Path(folder), name
        self.folder.mkdir(parents=True, exist_ok=True)
        header = json.loads(json.dumps({"format": FORMATS[name], **header}))
        self.done: dict[int, dict[str, Any]] = {}
        self.path = self.folder / (f"{name}.jsonl" if rank() == 0 else f"{name}.{rank()}.jsonl")
        for path in files_of(self.folder, name):
            found, lines, length = _read(path, name)
            if found is not None:
                _same(found, header, path)
            _add(self.done, lines, found or header, path)
            if path == self.path:
                with path.open("r+b") as file:
                    file.truncate(length)
        if not self.path.exists():
            self._begin()
        self._file = self.path.open("a", encoding="utf-8")  # appends, also where another process would write
        if self.path.stat().st_size == 0:
            self._write(header)

    def _begin(self) -> None:
        try:
            self.path.touch(exist_ok=False)
        except FileExistsError:
            raise UserError(f"{self.path} was begun by another run this moment. Give each run its own out.") from None

    def append(self, record: Mapping[str, Any]) -> None:
        r"""Adds one record and passes it to the operating system."""
        self._write(record)

    def refused(self, why: str) -> UserError:
        r"""Sets all results of the folder aside, since they prove nothing; the message that says so."""
        aside = []
        for path in files_of(self.folder, self.name):
            aside.append(path.with_name(path.name.replace(self.name, "refused")))
            os.replace(path, aside[-1])
        return UserError(f"{why} What was done until then was set aside as '{aside[0]}'.")

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
