r"""Where the time of a model goes: its networks, and the blocks that a network repeats.

A model is more than its network: a denoiser has coefficients in float64 and numbers on the host, a wrapper calls twice.
What compiles, is laid out and is computed again is the network alone. A class names the submodules that hold it in
`compiled_parts`; a module without that attribute is itself a network.
"""

from torch import nn


def networks(model: nn.Module) -> list[nn.Module]:
    r"""The networks inside a model, however it is wrapped."""
    names: tuple[str, ...] = getattr(model, "compiled_parts", ())
    parts = [part for name in names if isinstance(part := getattr(model, name, None), nn.Module)]
    found = [network for part in parts for network in networks(part)]
    return found or ([] if names else [model])


def blocks(network: nn.Module) -> list[nn.Module]:
    r"""The blocks that a network repeats: the innermost elements of its lists with at least two layers; else itself."""
    return _blocks(network, listed=False) or [network]


def _blocks(module: nn.Module, listed: bool) -> list[nn.Module]:
    lists = isinstance(module, nn.ModuleList | nn.Sequential)
    inner = [block for child in module.children() for block in _blocks(child, lists)]
    return inner or ([module] if listed and _layers(module) > 1 else [])


def _layers(module: nn.Module) -> int:
    r"""How many modules with parameters of their own a module has; a layer with adapters counts as one."""
    if hasattr(module, "base_layer"):
        return 1
    own = any(True for _ in module.parameters(recurse=False))
    return int(own) + sum(_layers(child) for child in module.children())


def convolves(model: nn.Module) -> bool:
    r"""Whether a network of a model has convolutions of images."""
    return any(isinstance(module, nn.Conv2d) for network in networks(model) for module in network.modules())
