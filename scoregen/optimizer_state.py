r"""The state of an optimizer as tensors and plain data, without pickles."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def pack(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    r"""The tensors of an optimizer by name, and its scalars and groups as plain data."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.detach()
            else:
                scalars[f"{index}.{name}"] = value
    groups = [
        {k: v for k, v in g.items() if isinstance(v, int | float | bool | str | list | tuple | None)}
        for g in state["param_groups"]
    ]
    return tensors, {"state": scalars, "groups": groups, "tensors": sorted(tensors)}


def unpack(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    r"""Restores what `pack` gave.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is of another optimizer, or damaged.
    """
    entries: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *plain["state"].items()]:
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    current = optimizer.state_dict()["param_groups"]
    groups = [{**own, **saved} for own, saved in zip(current, plain["groups"], strict=True)]
    if tensors.keys() != set(plain.get("tensors", tensors)):
        raise ValueError("tensors are missing")
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
