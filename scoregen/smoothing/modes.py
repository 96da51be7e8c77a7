r"""Modules in training mode, in a classifier or behind a function."""

import functools
import inspect
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

_MOST = 2000  # objects that are looked into
_OF_MODULES = frozenset(vars(nn.Module()))  # attributes that hold what `named_modules` gives, and hooks
_CONTENT = (type(None), int, float, complex, str, bytes, Tensor, np.ndarray, types.ModuleType, type)
_WRAPPED = (functools.partial, functools.partialmethod, staticmethod, classmethod, property)


def refuse_training(classifier: Callable[..., Any]) -> None:
    r"""Refuses a classifier with a module in training mode, whose dropout and batch statistics change its answers.

        Of a function, the modules are those that it names, encloses or is bound to, directly or through what it calls.

    Raises:
        ValueError: a module is in training mode.
    """
    for name, module in modules_of(classifier, "classifier"):
        training = next(_in_training(module), None)
        if training is not None:
            where = f"{name}.{training}" if training else name
            raise ValueError(
                f"classifier must be in evaluation mode, got {where!r} in training mode. Call {name}.eval()."
            )


def _in_training(module: nn.Module, name: str = "") -> Iterator[str]:
    r"""Names of the parts in training mode; the mode of an exported program was fixed, and its flags mean nothing."""
    if "eval" in vars(module):
        return
    if module.training:
        yield name
    for key, part in module.named_children():
        yield from _in_training(part, f"{name}.{key}" if name else key)


def modules_of(value: Any, name: str) -> Iterator[tuple[str, nn.Module]]:
    r"""The modules that a module, a function, a method, a partial or an object holds, with their names.

    The nearest come first. What a module registers is part of it and not given again.
    """
    waiting, seen = deque([(name, value)]), {id(value)}
    while waiting:
        name, value = waiting.popleft()
        if isinstance(value, nn.Module):
            yield name, value
            seen.update(map(id, value.modules()))
        for key, inner in _held(name, value):
            if len(seen) >= _MOST:
                break
            if id(inner) not in seen and not isinstance(inner, _CONTENT):
                seen.add(id(inner))
                waiting.append((key, inner))


def _held(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, nn.Module):
        for part in value.modules():
            hidden = {key: inner for key, inner in vars(part).items() if key not in _OF_MODULES}
            yield from ((f"{name}.{key}", inner) for key, inner in hidden.items() if _plain(inner))
            yield from _named(inspect.getattr_static(type(part), "forward", None), type(part))
    elif isinstance(value, _WRAPPED):
        yield from _unwrapped(name, value)
    elif inspect.ismethod(value):
        yield name, value.__self__
        yield from _named(value.__func__, type(value.__self__))
    elif inspect.isfunction(value):
        yield from _named(value, None)
    elif isinstance(value, dict):
        yield from ((f"{name}[{key!r}]", inner) for key, inner in value.items())
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from ((f"{name}[{number}]", inner) for number, inner in enumerate(value))
    elif _wraps(value):
        yield name, value.__wrapped__
    else:
        yield from _attributes(name, value)
        yield from _named(inspect.getattr_static(type(value), "__call__", None), type(value))


def _plain(value: Any) -> bool:
    r"""Whether an attribute of a module may be there to be called: a trainer, an optimizer or data are not followed."""
    return inspect.isroutine(value) or isinstance(value, (nn.Module, *_WRAPPED, list, tuple, dict))


def _unwrapped(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, property):
        yield name, value.fget
        return
    if isinstance(value, staticmethod | classmethod):
        yield name, value.__func__
        return
    yield name, value.func
    yield from ((f"argument {number}", argument) for number, argument in enumerate(value.args))
    yield from value.keywords.items()


def _attributes(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    r"""What an object holds, with __dict__ or in slots."""
    slots = [slot for kind in type(value).__mro__ for slot in _listed(vars(kind).get("__slots__", ()))]
    held = {slot: getattr(value, slot) for slot in slots if slot[:2] != "__" and hasattr(value, slot)}
    yield from ((f"{name}.{key}", inner) for key, inner in (held | getattr(value, "__dict__", {})).items())


def _listed(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _wraps(value: Any) -> bool:
    return "__wrapped__" in getattr(value, "__dict__", {})


def _named(function: Any, owner: type | None) -> Iterator[tuple[str, Any]]:
    r"""What a function encloses, has as defaults, or names: among globals, and in the class that it belongs to."""
    if not inspect.isfunction(function):
        return
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if cell != types.CellType():  # an empty one has no content yet
            yield variable, cell.cell_contents
    yield from ((f"default {number}", inner) for number, inner in enumerate(function.__defaults__ or ()))
    yield from (function.__kwdefaults__ or {}).items()
    for key in _names(function.__code__):
        if _followed(inner := function.__globals__.get(key), function.__module__):
            yield key, inner
        if owner is not None and _callable(inner := inspect.getattr_static(owner, key, None)):
            yield key, inner
    if _wraps(function):
        yield function.__name__, vars(function)["__wrapped__"]


def _names(code: types.CodeType) -> set[str]:
    r"""The global names and attributes in a function and in the functions that it makes."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _callable(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, (nn.Module, *_WRAPPED, list, tuple, dict))


def _followed(value: Any, module: str) -> bool:
    r"""Whether a global is a network or holds some, or a function or an object of the same module that may call one."""
    if isinstance(value, nn.Module | functools.partial | list | tuple | dict | types.SimpleNamespace):
        return True
    made = inspect.isroutine(value) or _wraps(value)
    return bool((getattr(value, "__module__", None) if made else type(value).__module__) == module)
