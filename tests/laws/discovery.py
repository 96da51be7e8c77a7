r"""Discovery: the public classes of a kind by walking the package, and what one of them lacks, by name.

A class is public unless its name, or the function that it stands in, is private; it is final unless it is abstract or
called so. Its package is the first folder under scoregen/ of its module: scoregen.samplers for
scoregen.samplers.heun.
"""

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import scoregen
from scoregen.config import conf_dir
from scoregen.description import option


def classes(base: type) -> dict[str, type]:
    r"""The public final classes under a base, wherever they stand in the package; target to class."""
    found = {}
    for module in pkgutil.walk_packages(scoregen.__path__, "scoregen."):
        if module.name.endswith("__main__"):
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            own = inspect.isclass(kind) and issubclass(kind, base) and kind.__module__ == module.name
            if own and not (inspect.isabstract(kind) or name.startswith(("_", "Abstract"))):
                found[target_of(kind)] = kind
    return found


def package_of(kind: type) -> str:
    r"""The package that should export a class."""
    return ".".join(kind.__module__.split(".")[:2])


def target_of(kind: type) -> str:
    r"""The name of a class in a configuration."""
    return f"{package_of(kind)}.{kind.__name__}"


def targets(node: Any) -> Iterator[str]:
    r"""Every `_target_` in a node and below it."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@cache
def read(path: Path) -> Any:
    r"""A file of conf/."""
    return yaml.load(path.read_text(), yaml.CSafeLoader) or {}


@cache
def _option(group: str, name: str) -> dict[str, Any]:
    return option(group, name)


def node_of(group: str, name: str) -> dict[str, Any]:
    r"""An option of a group of conf/, with what it builds on."""
    return copy.deepcopy(_option(group, name))


def options(group: str, target: str | None = None) -> list[str]:
    r"""The options of a group, all or those whose node has this target."""
    names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    return [name for name in names if target in (None, _option(group, name).get("_target_"))]


def unexported(kind: type) -> str | None:
    r"""What to do about a class that its package does not export."""
    package = package_of(kind)
    module = importlib.import_module(package)
    if kind.__name__ in module.__all__ and getattr(module, kind.__name__, None) is kind:
        return None
    file = f"{package.replace('.', '/')}/__init__.py"
    return f"{kind.__name__}: not in {package}.__all__; import it in {file} and add its name there."


def named(conf: Path) -> set[str]:
    r"""Every class that a file of a folder of conf/ names."""
    return {name for path in conf.rglob("*.yaml") for name in targets(read(path))}


def unconfigured(kind: type, group: str | None, conf: Path | None = None) -> str | None:
    r"""What to do about a class that no file of its group (of conf/, where it has none) names."""
    conf, target = conf or conf_dir(), target_of(kind)
    files = (conf / group).glob("*.yaml") if group else ()
    if target in ({read(path).get("_target_") for path in files} if group else named(conf)):
        return None
    where = f"conf/{group}/{kind.__module__.rpartition('.')[2]}.yaml" if group else "a file of conf/"
    return f"{kind.__name__}: no file of conf/{group or ''} names it; write _target_: {target} in {where}."


def unlisted(kind: type, group: str, keys: Collection[str]) -> str | None:
    r"""What to do about numbers, flags and texts among the arguments of a class that are no keys of its files."""
    parameters = inspect.signature(kind).parameters
    plain = [name for name, parameter in parameters.items() if isinstance(parameter.default, int | float | str)]
    key = next((name for name in plain if name not in keys), None)
    return key and f"{kind.__name__}: no file of conf/{group} has the key {key}, so that {group}.{key} is refused."


def uncovered(kinds: type | Collection[type], covered: Collection[type], advice: str) -> list[str]:
    r"""What to do about the classes, or those under a base, that no law covers."""
    found = classes(kinds).values() if isinstance(kinds, type) else kinds
    return [f"{kind.__name__}: no law covers it; {advice}." for kind in found if kind not in covered]
