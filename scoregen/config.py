r"""Configuration: from YAML nodes to objects.

A node is a mapping with a `_target_`; its other keys are constructor arguments. `build` checks names and types against
the signature before anything runs, so a slip is one message with the closest right name. Hydra composes the nodes.
"""

import contextlib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from scoregen.checks import either
from scoregen.errors import UserError, closest
from scoregen.targets import check_target, join, locate

Config = Mapping[str, Any]  # the resolved configuration of a run, as its config.yaml holds it


class Node(dict[str, Any]):
    r"""A node that stays as it is: whoever receives it builds it, with arguments that only the receiver knows."""


def build(node: Any, *, trust: Collection[str] | None = None, where: str = "", **arguments: Any) -> Any:
    r"""Builds the object that a node describes; nested nodes first.

    Args:
        node: plain data; a mapping with `_target_` becomes a call, with `_partial_: true` a `functools.partial`.
        trust: None for what the user typed. For a config that came with a checkpoint the modules that the user trusts:
            only their classes, and processes and models of this package, are built.
        where: path of the node, for messages.
        arguments: arguments added to the call of the outermost node (not checked for being known).

    Raises:
        UserError: an unknown key or target, a wrong type, a value that the constructor refuses, an untrusted target.
    """
    if isinstance(node, Mapping):
        if "_target_" not in node:
            return {key: build(value, trust=trust, where=join(where, key)) for key, value in node.items()}
        return _call(node, trust, where, arguments)
    if isinstance(node, list | tuple):
        return [build(value, trust=trust, where=f"{where}[{i}]") for i, value in enumerate(node)]
    return node


def accepts(node: Mapping[str, Any], name: str, where: str = "") -> bool:
    r"""Whether the target of a node has an argument of this name; `where` is the path of the node, for messages."""
    return name in _parameters(locate(target_of(node, where), where))


def target_of(node: Mapping[str, Any], where: str = "") -> str:
    r"""The `_target_` of a node; UserError where it has none."""
    target = node.get("_target_")
    if not isinstance(target, str):
        raise UserError(
            f"{join(where, '_target_')}: must be the dotted name of a class, got {node.get('_target_')!r}; give the "
            "whole node, or choose an option of its group."
        )
    return target


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (ValueError, TypeError):  # a module, or a builtin without a signature
        return {}


def _call(node: Mapping[str, Any], trust: Collection[str] | None, where: str, arguments: dict[str, Any]) -> Any:
    target = target_of(node, where)
    if trust is not None:
        check_target(node, where, trust)
    function = locate(target, where)
    if not callable(function):
        raise UserError(f"{join(where, '_target_')}: '{target}' is not a class or function.")
    parameters = _parameters(function)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(function)
    given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    for key in given:
        if key not in parameters and not open_ended:
            raise UserError(f"{join(where, key)}: {_unknown(key, where, parameters, node)}")
    values = {}
    for key in sorted(given, key=lambda key: isinstance(given[key], Mapping | list)):  # quick checks first
        if given[key] == "???":
            raise UserError(f"{join(where, key)}: a value is required; give {join(where, key)}=...")
        later = Node in (hints.get(key), *typing.get_args(hints.get(key)))
        value = given[key] if later else build(given[key], trust=trust, where=join(where, key))
        values[key] = typed(value, hints.get(key), join(where, key))
    values |= arguments
    if node.get("_partial_"):
        return functools.partial(function, **values)
    wanted = (
        k for k, p in parameters.items() if p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    )
    missing = [join(where, k) for k in wanted if k not in values]
    if missing:
        raise UserError(f"{missing[0]}: a value is required by {target}; give {missing[0]}=...")
    try:
        return function(**values)
    except UserError as error:
        raise error if not where or str(error).startswith(where) else UserError(f"{where}: {error}") from error
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from error


def _unknown(key: str, where: str, parameters: Mapping[str, inspect.Parameter], node: Mapping[str, Any]) -> str:
    r"""What to do about a key that a target does not take; where none is near, the whole node to write."""
    text = f"'{key}' is not an argument of {node['_target_']}."
    known = {name: p for name, p in parameters.items() if name not in ("self", "args", "kwargs")}
    strange = [name for name in node if name not in known and not name.startswith("_")]
    if not where or (len(strange) == 1 and closest(key, known).startswith("Did")):
        return f"{text} {closest(key, known)}"
    kept = [f"{name}: {node[name]}" for name in known if isinstance(node.get(name), int | float | str)]
    rest = [f"{name}: ..." for name in known if name not in node]
    whole = ", ".join([f"_target_: {node['_target_']}", *kept, *rest])
    return f"{text} Write the node whole, with what it takes: '{where}={{{whole}}}'."


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except Exception:  # a third-party signature whose annotations do not resolve is left to its own checks
        return {}


def typed(value: Any, hint: Any, where: str) -> Any:
    r"""The value as its annotation wants it (lists become tuples, integers floats).

    Numbers, flags, texts, lists of them and classes of this package are checked; other annotations accept everything.

    Raises:
        UserError: another type.
    """
    if hint is None or hint is Any:
        return value
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    names: list[str] = []
    for option in options:
        origin = typing.get_origin(option) or option
        if origin is typing.Literal:
            if value in (choices := typing.get_args(option)) and not isinstance(value, bool):
                return value
            names += choices
            continue
        if origin is Node and isinstance(value, Mapping):
            return Node(value)
        if origin in (tuple, list) and isinstance(value, list | tuple):
            lists = [other for other in options if (typing.get_origin(other) or other) in (tuple, list)]
            if len(lists) == 1:
                return _elements(value, option, where)
            with contextlib.suppress(UserError):
                return _elements(value, option, where)
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin in _PLAIN:
            if type(value) is origin:
                return value
        elif not (inspect.isclass(origin) and origin.__module__.startswith("scoregen.")) or isinstance(value, origin):
            return value
        of = _PLURAL.get(typing.get_args(option)[0], "") if origin in (tuple, list) and typing.get_args(option) else ""
        names.append(_PLAIN.get(origin, origin.__name__) + of)
    found = "null" if value is None else f"{value!r} ({_PLAIN.get(type(value), type(value).__name__)})"
    advice = closest(value, names) if isinstance(value, str) else ""
    if isinstance(value, str | int | float) and any((typing.get_origin(o) or o) in (tuple, list) for o in options):
        advice = f"Did you mean {where}=[{value}]?"
    if isinstance(value, str) and any(typing.get_origin(option) is typing.Literal for option in options):
        found = repr(value)  # the choices say what it should be
    raise UserError(f"{where}: must be {either(names)}, got {found}." + f" {advice}" * advice.startswith("Did"))


_PLAIN = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a list",
    list: "a list",
    Node: "a mapping with a _target_",
    type(None): "null",
}


_PLURAL = {int: " of integers", float: " of numbers", str: " of texts"}


def _elements(value: Sequence[Any], hint: Any, where: str) -> Any:
    r"""A list or tuple, as the annotation says, with elements of its types."""
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if not inner:
        return origin(value)
    if origin is tuple and inner[-1] is not Ellipsis and len(inner) != len(value):
        raise UserError(f"{where}: must be a list of {len(inner)}, got {list(value)} of {len(value)}.")
    hints = inner if origin is tuple and inner[-1] is not Ellipsis else inner[:1] * len(value)
    return origin(typed(v, h, f"{where}[{i}]") for i, (v, h) in enumerate(zip(value, hints, strict=True)))


def conf_dir() -> Path:
    r"""The folder of the YAML files: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "conf"
    return checkout if (package.parent / "pyproject.toml").exists() and checkout.is_dir() else package / "conf"
