r"""From objects back to nodes: what a job was given, as plain data for its record.

The inverse of `scoregen.config.build`: an object is described by its class and the attributes that bear the names of
its constructor's arguments (where a method bears the name, `argument_attributes` of the class says which attribute
stands for it). Large contents (tensors, arrays, weights) are described by their shape and a digest.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scoregen.config import Node, build, conf_dir
from scoregen.errors import UserError, closest

_MISSING = object()


def plain(value: Any, where: str = "") -> Any:
    r"""A value as plain data: numbers, texts, lists and mappings.

    Args:
        value: plain data, or an object. where: its place, for messages.

    Raises:
        UserError: an object that does not keep an argument of its constructor as an attribute of that name.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    if isinstance(value, partial):
        return {"_target_": name_of(value.func), "_partial_": True, **plain(value.keywords, where)}
    if hasattr(value, "__array__") or type(value).__module__ == "torch":
        return _content(value)
    if inspect.isclass(value) or inspect.isroutine(value):
        return name_of(value)
    return {"_target_": name_of(type(value)), **_arguments(value, where)}


def name_of(target: Callable[..., Any]) -> str:
    r"""The dotted name of a class or function, by the shortest package that exports it."""
    module, name = target.__module__, target.__qualname__
    parts = module.split(".")
    for end in range(1, len(parts)):
        package = sys.modules.get(".".join(parts[:end]))
        if vars(package).get(name) is target if package else False:
            return f"{'.'.join(parts[:end])}.{name}"
    return f"{module}.{name}"


def _content(value: Any) -> Any:
    r"""Of a tensor or an array; of torch's other objects (a dtype, a device) the text."""
    if not hasattr(value, "shape"):
        return str(value)
    array = value.detach().cpu().contiguous().numpy() if hasattr(value, "detach") else value
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}


def _arguments(value: Any, where: str) -> dict[str, Any]:
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.init]
    else:
        names = [name for name in inspect.signature(type(value)).parameters if name not in ("args", "kwargs")]
    found = {}
    for name in names:
        inner = getattr(value, getattr(type(value), "argument_attributes", {}).get(name, name), _MISSING)
        if inner is _MISSING:
            raise UserError(
                f"{where or 'value'}: a {type(value).__name__} does not keep its argument '{name}' as an attribute, so "
                f"that it cannot be described. Keep it as self.{name}, or give a node with a _target_."
            )
        found[name] = plain(inner, f"{where}.{name}" if where else name)
    return found


def option(group: str, name: str) -> dict[str, Any]:
    r"""The node of an option of a configuration group: conf/<group>/<name>.yaml with what it builds on.

    Raises:
        UserError: there is no such option.
    """
    from omegaconf import OmegaConf  # reads 1e-3 as a number, as Hydra does

    path = conf_dir() / group / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in path.parent.glob("*.yaml")]
        raise UserError(f"{group}: there is no option '{name}'. {closest(name, known)}")
    node: Any = OmegaConf.to_container(OmegaConf.load(path))
    found: dict[str, Any] = {}
    for base in node.pop("defaults", ["_self_"]):
        found = merged(found, node if base == "_self_" else option(group, base))
    return found


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    r"""The keys of both, those of `new` over those of `old`, level by level."""
    both = dict(old)
    for key, value in new.items():
        inner = both.get(key)
        both[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return both


def node_option(group: str, name: str) -> Callable[[], Node]:
    r"""As `built_option`, the node itself."""
    return lambda: Node(option(group, name))


def root_node(root: str, key: str) -> Callable[[], Node]:
    r"""Gives a node that stands in the root of a job in conf/ when it is called."""

    def read() -> Node:
        from omegaconf import OmegaConf

        node: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{root}.yaml"))
        return Node(node[key])

    return read


def built_option(group: str, name: str) -> Callable[[], Any]:
    r"""Builds an option of a configuration group when it is called: a default that Python and YAML share."""
    return lambda: build(option(group, name), where=group)
