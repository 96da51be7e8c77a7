r"""What the model of a foreign configuration would cost, compared with the header of its weights before it is built.

The header of a safetensors file names every tensor with its shape. The model is first built on the meta device, where
tensors have no memory, and compared with it; while it is built for good, the number of its parameters stays bounded.
"""

import math
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoregen.errors import UserError
from scoregen.failures import translated
from scoregen.storage import short
from scoregen.targets import is_module, is_under, locate

Shapes = Mapping[str, tuple[int, ...]]
_SPARE_TENSORS, _SPARE_NUMBERS = 1000, 2**20  # buffers that are not saved, and layers that others replace


class _TooLarge(Exception):
    r"""A model that is being built is larger than its weights."""


def header(file: Path) -> dict[str, tuple[int, ...]]:
    r"""Names and shapes of the tensors of a safetensors file; no tensor is read.

    Raises:
        UserError: it is missing or damaged.
    """
    from safetensors import safe_open

    broken = translated(f"checkpoint: '{file}' is missing or damaged", "Use an earlier checkpoint.")
    with broken, safe_open(file, "pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def build_bounded(
    config: Mapping[str, Any], shapes: Shapes, make: Callable[[], nn.Module], own: Collection[str] = ()
) -> nn.Module:
    r"""The model of a configuration from elsewhere, if it is no larger than its weights.

    Args:
        config: its nodes, whose targets are known to be trusted.
        shapes: of the weights.
        make: builds the model.
        own: modules of the user's, whose classes may take any integers; what they build is bounded all the same.

    Raises:
        UserError: the model is not that of the weights.
    """
    classes = [locate(node["_target_"]) for node in nodes(config)]
    if any(hasattr(kind, "outside") for kind in classes):  # most of its weights are not in the checkpoint
        _check_integers(config, max((max(shape, default=1) for shape in shapes.values()), default=1), own)
        return make()
    _check_integers(config, max(sum(map(math.prod, shapes.values())), 2**16), own)
    for kind in classes:
        getattr(kind, "import_parts", lambda: None)()  # else imported with the meta device as the default one
    try:
        with translated("checkpoint: its model cannot be built", "Use another checkpoint."), _bounded(shapes):
            _compare_on_meta(shapes, make, any(is_under(node["_target_"], own) for node in nodes(config)))
            return make()
    except UserError as error:  # torch's own errors have a stack of lines
        raise UserError(str(error.args[0]).splitlines()[0]) from error
    except (_TooLarge, OverflowError) as error:
        raise UserError(
            f"checkpoint: its configuration is that of a larger model than its weights ({error})."
        ) from error


def refuse_outside(config: Mapping[str, Any], folder: Path, trust: Collection[str]) -> None:
    r"""Refuses a model that would read or fetch what is not in its checkpoint.

    Args:
        config: its nodes, whose targets are known to be trusted. folder: of the checkpoint.
        trust: places, folders or hub ids, that may be read or fetched nevertheless.

    Raises:
        UserError: the model names another place.
    """
    trusted = {Path(place).resolve() for place in trust if not is_module(place)}
    for node in nodes(config):
        for name in getattr(locate(node["_target_"]), "outside", ()):
            place = str(node.get(name))
            found = Path(place).resolve()
            if found not in trusted and not found.is_relative_to(folder.resolve()):
                place = f"./{place}" if is_module(place) else place
                raise UserError(
                    f"checkpoint: its model reads the {name} '{place}', which is not in '{folder}'. If you trust it, "
                    f"allow it with scoregen.load(..., trust=['{place}'])."
                )


def nodes(config: Any) -> Iterator[Mapping[str, Any]]:
    r"""The nodes with a `_target_` of a configuration."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield config
        for value in config.values():
            yield from nodes(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from nodes(value)


def _compare_on_meta(shapes: Shapes, make: Callable[[], nn.Module], own: bool) -> None:
    try:
        with torch.device("meta"):
            found = make().state_dict()
    except (_TooLarge, OverflowError):
        raise
    except Exception as error:
        if own or isinstance(error, RuntimeError):
            return  # it computes with values while it is built, and is bounded by the number of its parameters
        raise
    difference = misfit(found, shapes)
    if difference is not None:
        raise UserError(f"checkpoint: the weights do not fit the model: {difference}.")


def misfit(own: Mapping[str, Tensor], shapes: Shapes) -> str | None:
    r"""The first difference between what a model has and what a file holds, or None."""
    for names, text in (
        (own.keys() - shapes.keys(), "the file lacks"),
        (shapes.keys() - own.keys(), "the model lacks"),
    ):
        if names:
            return f"{text} '{min(names)}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    for name, tensor in own.items():
        if tuple(tensor.shape) != shapes[name]:
            return f"'{name}' is {shapes[name]} in the file and {tuple(tensor.shape)} in the model"
    return None


@contextmanager
def _bounded(shapes: Shapes) -> Iterator[None]:
    r"""Ends the building of models in this thread whose tensors or numbers are several times those of the weights."""
    hooks = torch.nn.modules.module
    most = 4 * len(shapes) + _SPARE_TENSORS, 4 * sum(map(math.prod, shapes.values())) + _SPARE_NUMBERS
    tensors = numbers = 0
    thread = threading.get_ident()

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal tensors, numbers
        if tensor is not None and threading.get_ident() == thread:
            tensors, numbers = tensors + 1, numbers + tensor.numel()
            if tensors > most[0] or numbers > most[1]:
                raise _TooLarge(
                    f"{type(module).__name__} with more than {tensors - 1} tensors or {numbers - 1} numbers"
                )

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_integers(node: Any, most: int, own: Collection[str], where: str = "") -> None:
    r"""Refuses integers that no size of a model with these weights can have."""
    if isinstance(node, Mapping) and is_under(str(node.get("_target_")), own):
        node = {key: value for key, value in node.items() if isinstance(value, Mapping)}
    if isinstance(node, int) and abs(node) > most:
        raise UserError(
            f"checkpoint: {where}={short(node)} is more than its weights have numbers. Use another checkpoint."
        )
    if isinstance(node, Mapping):
        for key, value in node.items():
            _check_integers(value, most, own, f"{where}.{key}" if where else str(key))
    elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
        for i, value in enumerate(node):
            _check_integers(value, most, own, f"{where}[{i}]")
