r"""Modules in training mode, in a classifier or behind a function."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


def refuse_training(classifier: Callable[..., Any]) -> None:
    r"""Refuses a classifier with a module in training mode, whose dropout and batch statistics change its answers.

        Of a function, the modules are those that it names, encloses or is bound to.

    Raises:
        ValueError: a module is in training mode.
    """
    for name, module in modules_of(classifier, "classifier"):
        training = next((inner for inner, part in module.named_modules() if part.training), None)
        if training is not None:
            where = f"{name}.{training}" if training else name
            raise ValueError(
                f"classifier must be in evaluation mode, got {where!r} in training mode. Call {name}.eval()."
            )


def modules_of(value: Any, name: str, depth: int = 4) -> Iterator[tuple[str, nn.Module]]:
    r"""The modules that a module, a function, a method, a partial or an object holds, with their names."""
    if isinstance(value, nn.Module):
        yield name, value
    elif depth:
        for key, inner in _held(value):
            yield from modules_of(inner, key, depth - 1)


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, functools.partial):
        yield "classifier", value.func
        yield from ((f"argument {number}", argument) for number, argument in enumerate(value.args))
        yield from value.keywords.items()
    elif inspect.ismethod(value):
        yield "classifier", value.__self__
        yield "classifier", value.__func__
    elif inspect.isfunction(value):
        named = inspect.getclosurevars(value)
        yield from named.nonlocals.items()
        yield from ((key, inner) for key, inner in named.globals.items() if _followed(inner, value.__module__))
        yield from ((f"default {number}", inner) for number, inner in enumerate(value.__defaults__ or ()))
    elif isinstance(value, list | tuple):
        yield from ((f"number {number}", inner) for number, inner in enumerate(value))
    elif isinstance(value, dict):
        yield from ((str(key), inner) for key, inner in value.items())
    elif hasattr(value, "__dict__") and not inspect.isclass(value) and not inspect.ismodule(value):
        yield from vars(value).items()


def _followed(value: Any, module: str) -> bool:
    r"""Whether a global is a network, or a function or an object of the same module that may call one."""
    if isinstance(value, nn.Module | functools.partial):
        return True
    home = value.__module__ if inspect.isfunction(value) else type(value).__module__
    return bool(home == module)
