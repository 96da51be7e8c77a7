r"""Files of `torch.export`, looked into before they are loaded.

Such a file is a program: what it computes is its own, and its guards are Python. It may besides hold pickles, which run
whatever they like when they are read, and compiled libraries. Files with these are refused; the example inputs, which
torch always pickles, are read as tensors only.
"""

import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_KNOWN = re.compile(
    r"models/model\.json|data/(weights/(weight_\d+|model_weights_config\.json)|sample_inputs/model\.pt"
    r"|constants/(tensor_\d+|model_constants_config\.json))|extra/.*|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id)"
)
_PAYLOAD = re.compile(r"weight_\d+|tensor_\d+")
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MOST_BYTES, _MOST_CONFIG = 2**28, 2**26


def load_exported(path: Path) -> torch.nn.Module:
    r"""The module of an exported program.

    Raises:
        ValueError: the file holds pickles or libraries, or more than it seems.
    """
    refuse_pickles(path)
    with _tensors_only():
        return torch.export.load(path).module()


def refuse_pickles(path: Path) -> None:
    r"""Refuses an archive of `torch.export` whose members would be unpickled or loaded as libraries.

    Raises:
        ValueError: it has such members, or none of this format.
    """
    _check_legacy(path)
    archive: Any = torch._C.PyTorchFileReader(str(path))  # what torch itself reads it with: both see the same members
    members = archive.get_all_records()
    for name in members:
        if not _KNOWN.fullmatch(name):
            raise ValueError(f"it holds '{name}', which may run as code when it is read")
    for name in _CONFIGS:
        if name in members:
            if archive.get_record_size(name) > _MOST_CONFIG:
                raise ValueError(f"its '{name}' has more than {_MOST_CONFIG} bytes")
            _check_payloads(json.loads(archive.get_record(name)), name)


def _check_legacy(path: Path) -> None:
    r"""Refuses the older format, to which torch falls back, and archives that unpack to far more than they hold."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    old = next((i.filename for i in infos if i.filename == "version" or i.filename.startswith("serialized_")), None)
    if old is not None:
        raise ValueError(f"it holds '{old}' of torch 2.7 or older, which is a pickle; export it again")
    if sum(info.file_size for info in infos) > max(_MOST_BYTES, 4 * path.stat().st_size):
        raise ValueError("it would unpack to more than four times its size")


def _check_payloads(config: Any, name: str) -> None:
    payloads = config.get("config") if isinstance(config, dict) else None
    if not isinstance(payloads, dict):
        raise ValueError(f"its '{name}' is no mapping")
    for key, payload in payloads.items():
        if not isinstance(payload, dict) or payload.get("use_pickle") is not False:
            raise ValueError(f"its tensor '{key}' is a pickle, which may run as code when it is read")
        if not _PAYLOAD.fullmatch(str(payload.get("path_name"))):
            raise ValueError(f"its tensor '{key}' is in '{payload.get('path_name')}', which is no tensor")


@contextmanager
def _tensors_only() -> Iterator[None]:
    r"""Makes every `torch.load` of this process read tensors only."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before, os.environ[name] = os.environ.get(name), "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        os.environ |= {} if before is None else {name: before}
