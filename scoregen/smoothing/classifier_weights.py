r"""Weights of a classifier from a file of their own: names and shapes are checked, nothing in it is run."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from scoregen.errors import UserError, absent
from scoregen.failures import translated
from scoregen.sizes import misfit

PRETRAINED = "pretrained"
_INSIDE = ("state_dict", "model_state_dict", "model")  # where other programs put them


def read_weights(path: Path) -> dict[str, Tensor]:
    r"""The tensors of a .safetensors file, or of a .pt file, of which only tensors are read.

    Raises:
        UserError: no such file, damaged, or no state dict.
    """
    if not path.is_file():
        raise UserError(f"classifier_weights: {absent(path)}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        with translated(f"classifier_weights: '{path}' cannot be read", "Give another file."):
            return load_file(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of whatever it holds besides tensors
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if first.startswith("Weights only"):  # whose advice is to run what the file holds
            first = "it holds other Python objects, such as a whole module"
        raise UserError(
            f"classifier_weights: '{path}' cannot be read as tensors alone ({first:.200}). Save the state dict: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        ) from error
    inside = found
    if isinstance(found, Mapping):
        inside = next((found[name] for name in _INSIDE if isinstance(found.get(name), Mapping)), found)
    if not isinstance(inside, Mapping) or not all(isinstance(tensor, Tensor) for tensor in inside.values()):
        raise UserError(f"classifier_weights: '{path}' must hold a state dict, got {type(found).__name__}.")
    return dict(inside)


def filled(make: Callable[[int | None], nn.Module], path: str, name: str) -> nn.Module:
    r"""A network with the weights of a file.

    Args:
        make: builds it, with a number of classes or (None) that of its library.
        path: of the file. name: of the network, for messages.

    Raises:
        UserError: the weights are of another network.
    """
    tensors = _named(read_weights(Path(path)))
    network = make(None)
    classes = _other_head(network, tensors)
    if classes is not None:
        network = make(classes)
    _load(network, tensors, path, name)
    return network


def read_weights_into(network: nn.Module, path: str, name: str) -> None:
    r"""As `filled`, into a network that is there."""
    _load(network, _named(read_weights(Path(path))), path, name)


def _named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    r"""Without the prefix of a model that was spread over devices."""
    if not all(key.startswith("module.") for key in tensors):
        return tensors
    return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}


def _load(network: nn.Module, tensors: Mapping[str, Tensor], path: str, name: str) -> None:
    difference = misfit(network.state_dict(), {key: tuple(tensor.shape) for key, tensor in tensors.items()})
    if difference is not None:
        raise UserError(f"classifier_weights: '{path}' does not fit {name}: {difference}. Give the weights of {name}.")
    network.load_state_dict(tensors)


def _other_head(network: nn.Module, tensors: Mapping[str, Tensor]) -> int | None:
    r"""The number of classes of the weights, where they differ from the network in their last layer alone."""
    pairs = [(own, tensors[key]) for key, own in network.state_dict().items() if key in tensors]
    heads = [(own.shape, new.shape) for own, new in pairs if own.shape != new.shape]
    classes = {new[:1] for own, new in heads if own[1:] == new[1:] and len(new)}
    return int(classes.pop()[0]) if len(classes) == 1 else None
