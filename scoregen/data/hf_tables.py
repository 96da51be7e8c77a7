r"""Tables of the Hugging Face library `datasets`: how they are loaded, and which of their columns say what."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from scoregen.checks import either
from scoregen.compat import repair_torchvision
from scoregen.data.bounds import check_labels
from scoregen.errors import UserError, absent, closest
from scoregen.parallel import rank

Table = Any  # a datasets.Dataset, which has no types


def load_tables(path: str, subset: str | None, revision: str | None) -> dict[str, Table]:
    r"""The splits of a data set by name.

    Raises:
        UserError: the library is missing, or it cannot read the data; its reason, in one line.
    """
    library = _library()
    local = Path(path).expanduser()
    if not local.exists() and (path.count("/") != 1 or path[0] in "./~"):
        raise UserError(f"data.path: {absent(local)} An id on the hub is OWNER/NAME.")
    try:
        found = _read_local(library, local) if local.exists() else None
        if found is None:
            found = library.load_dataset(str(local) if local.exists() else path, name=subset, revision=revision)
    except UserError:
        raise
    except Exception as error:  # of any kind: of the network, of Arrow, of a builder
        raise UserError(f"data.path: '{path}' cannot be read by datasets ({_reason(error)}).") from error
    if not isinstance(found, Mapping):
        found = {"train": found}
    return {str(name): table for name, table in found.items()}


def _read_local(library: ModuleType, path: Path) -> Any:
    r"""What the library has written itself, or one file; None for a folder of files."""
    if path.is_dir():
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        return library.load_from_disk(str(path)) if saved else None
    kinds = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}
    if path.suffix not in kinds:
        raise UserError(f"data.path: must be a folder, or a file {either(kinds)}, got '{path}'.")
    return library.load_dataset(kinds[path.suffix], data_files=str(path))


def _library() -> ModuleType:
    repair_torchvision()
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"data: data=hf needs the library datasets ({error}). Install it: pip install 'scoregen[datasets]'."
        ) from error
    if rank() != 0 or not sys.stderr.isatty():
        datasets.disable_progress_bars()
    module: ModuleType = datasets
    return module


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:  # the library wraps what has failed
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def roots(path: str) -> tuple[Path, ...]:
    r"""Folders in which pictures of a data set may lie: its own, or those of the library for what is on the hub."""
    local = Path(path).expanduser()
    if local.exists():
        return ((local if local.is_dir() else local.parent).resolve(),)
    from datasets import config
    from huggingface_hub import constants

    return tuple(Path(folder).resolve() for folder in (constants.HF_HUB_CACHE, config.HF_DATASETS_CACHE))


def encoded(table: Table, column: str) -> Table:
    r"""A table whose pictures are not decoded by the library."""
    from datasets import Image

    return table.cast_column(column, Image(decode=False)) if isinstance(table.features[column], Image) else table


def picture_column(features: Mapping[str, Any], image: str | None) -> str:
    if image is not None:
        return known(features, image, "data.image")
    found = [name for name, kind in features.items() if _holds_pictures(kind)]
    if len(found) != 1:
        raise UserError(
            f"data.image: must name the column of the pictures, {len(found)} of the columns can be it. "
            f"Choices: {', '.join(found or features)}."
        )
    return found[0]


def _holds_pictures(kind: Any) -> bool:
    from datasets import Image, Value

    return isinstance(kind, Image) or kind == Value("binary") or (isinstance(kind, dict) and "bytes" in kind)


def label_column(features: Mapping[str, Any], label: str | None) -> str | None:
    from datasets import ClassLabel, Value

    if label is not None:
        return known(features, label, "data.label")
    found = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    if len(found) > 1:
        raise UserError(f"data.label: must name the column of the classes. Choices: {', '.join(found)}.")
    usual = [name for name in ("label", "cls") if isinstance(features.get(name), Value)]
    return (found + usual + [None])[0]


def known(features: Mapping[str, Any], name: str, where: str) -> str:
    if name not in features:
        raise UserError(f"{where}: there is no column '{name}'. {closest(name, features)}")
    return name


def labels_of(table: Table, column: str | None, where: str) -> tuple[tuple[str, ...], np.ndarray | None]:
    r"""Names of classes or texts, and their numbers, (N,); classes that are numbers have no names."""
    if column is None:
        return (), None
    cells = table.select_columns([column]).with_format("arrow")[:].column(0).combine_chunks()
    kind, texts = table.features[column], str(cells.type) in ("string", "large_string")
    numbered = str(cells.type).lstrip("u").startswith("int") and where == "data.label"
    if cells.null_count or not (texts or numbered):
        wanted = "a whole number or a text" if where == "data.label" else "a text"
        raise UserError(
            f"{where}: column '{column}' must hold {wanted} in each row, got {cells.type}, {cells.null_count} empty. "
            "Name another column."
        )
    if texts:
        coded = cells.dictionary_encode()
        names, numbers = coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64)
        if where == "data.label" and "" in names:
            raise UserError(f"{where}: column '{column}' has empty texts, which are no classes. Fill them in.")
        if where == "data.label":  # in the order of the alphabet
            order = np.argsort(names)
            names, numbers = [names[k] for k in order], np.argsort(order)[numbers]
    else:
        names, numbers = list(getattr(kind, "names", None) or ()), cells.to_numpy().astype(np.int64)
    check_labels(column, numbers, len(table))
    return tuple(names), numbers
