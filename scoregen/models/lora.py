r"""Low-rank adapters: W' = W + B A with A (r, in) and B (out, r), B = 0 at the start; only A and B are trained.

They sit on the attention layers of a network unless other layers are named. W' is again a plain weight, so adapters can
be folded in when training is over. Needs peft, the extra `lora`.

Reference: Hu et al. (2021), arXiv 2106.09685.
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from scoregen.checks import whole
from scoregen.compat import repair_torchvision
from scoregen.errors import UserError
from scoregen.models.next_level import NextLevel

# the projections of every attention block of diffusers
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class LoRA(nn.Module):
    r"""A network whose own weights are frozen, with adapters beside them. What tells it the next level is trained too.

    Args:
        network: (z, c_noise, label) -> tensor; it is changed in place.
        rank: r of every adapter.
        targets: names, or the ends of dotted names, of linear or convolutional layers; attention unless given.

    Raises:
        ValueError: rank < 1, or no layer has such a name. UserError: peft is not installed.
    """

    compiled_parts: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(self, network: nn.Module, rank: int = 8, targets: tuple[str, ...] = ATTENTION) -> None:
        super().__init__()
        self.network = add_adapters(network, rank, targets)
        self.rank, self.targets = rank, tuple(targets)
        self.num_classes: int | None = getattr(network, "num_classes", None)
        self.shape: tuple[int, ...] | None = getattr(network, "shape", None)
        self.next_level = bool(getattr(network, "next_level", False))
        for part in self.network.modules():
            if isinstance(part, NextLevel):  # it starts at zero, so that adapters alone could not learn to jump
                part.requires_grad_(True)

    @staticmethod
    def import_parts() -> Any:
        r"""The module that makes adapters, imported late since that takes seconds."""
        return require_peft()

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None, **options: Tensor) -> Tensor:
        output: Tensor = self.network(z, c_noise, label, **options)
        return output


def add_adapters(network: nn.Module, rank: int, targets: tuple[str, ...] = ATTENTION) -> nn.Module:
    r"""Freezes a network in place and adds adapters of scale 1, which change nothing before they are trained.

    Args:
        network: any module. rank, targets: as in `LoRA`.

    Returns:
        The network, its adapters the only trainable parameters.
    """
    whole(1, rank=rank)
    names = _layers(network)
    missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in names)]
    if missing or not targets:
        raise ValueError(_no_such_layer(network, targets, missing))
    peft = require_peft()
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets))
    adapted: nn.Module = peft.inject_adapter_in_model(config, network)  # which freezes the rest
    return adapted


def merge_adapters(model: nn.Module) -> nn.Module:
    r"""Folds adapters into the weights that they stand beside, W <- W + B A, in place.

    Args:
        model: a denoiser or network with adapters anywhere inside; without adapters it is left as it is.

    Returns:
        The model with plain layers. Its outputs are the same up to rounding; its weights fit the plain configuration.
    """
    layers = require_peft().tuners.tuners_utils.BaseTunerLayer
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, layers):
                child.merge()
                setattr(parent, name, child.get_base_layer())
            elif isinstance(child, LoRA):
                setattr(parent, name, child.network)
    for module in model.modules():
        if hasattr(module, "peft_config"):
            del module.peft_config
    return model.network if isinstance(model, LoRA) else model


def require_peft() -> Any:
    r"""The module `peft`, or an error that says how to get it."""
    repair_torchvision()
    try:
        import peft
    except ModuleNotFoundError as error:
        raise UserError(f"LoRA needs the extra `lora` ({error}): pip install 'scoregen[lora]'.") from error
    return peft


def _layers(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def _no_such_layer(network: nn.Module, targets: tuple[str, ...], missing: list[str]) -> str:
    kind = type(network).__name__
    parts = [name.split(".") for name in _layers(network)]
    ends = ", ".join(sorted({".".join(p[-2:] if p[-1].isdigit() else p[-1:]) for p in parts}))
    if set(targets) == set(ATTENTION):
        return (
            f"targets: this {kind} has no attention to adapt (layers {', '.join(ATTENTION)}). Train one with attention "
            f"(a U-Net with model.network.attention=[false,true,...], a flag a level), or name other layers as "
            f"targets, of {ends}."
        )
    return f"targets: this {kind} has no layer '{', '.join(missing)}'. Its layers are {ends}."
