r"""Networks of diffusers, (z, timestep, class_labels) -> output.sample, behind the interface (z, c_noise, label)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scoregen.checks import one_of, positive, whole
from scoregen.errors import closest
from scoregen.sde.path import readable

# diffusers' `prediction_type` and ours
PREDICTION_TYPES = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


class TimestepNetwork(nn.Module):
    r"""(z, c_noise, label) -> model(z, time_scale c_noise, class_labels).sample, without a learned variance.

    Args:
        model: a diffusers network such as `UNet2DModel`. A learned variance (more channels out than in) is dropped.
        num_classes: labels 0..num_classes-1; None for an unconditional network.
        null_label: the class that stands for "no label" (-1); None where the network knows none.
        time_scale: timesteps a unit of c_noise, > 0.

    Raises:
        ValueError: a value is out of range.
    """

    compiled_parts: ClassVar[tuple[str, ...]] = ("model",)

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        null_label: int | None = None,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        positive(time_scale=time_scale)
        if null_label is not None:
            whole(0, null_label=null_label)
        self.model, self.time_scale = model, float(time_scale)
        self.num_classes, self.null_label = num_classes, null_label

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        classes = {} if self.num_classes is None else {"class_labels": self._classes(label, z)}
        output: Tensor = self.model(z, self.time_scale * c_noise, **classes).sample
        return output[:, : z.shape[1]]

    def _classes(self, label: Tensor | None, z: Tensor) -> Tensor:
        if self.null_label is not None:
            null = torch.full((len(z),), self.null_label, device=z.device)
            return null if label is None else torch.where(label < 0, null, label.to(null))
        if label is None or (readable(label) and bool((label < 0).any())):  # else a wait at every call
            given = "None" if label is None else f"values down to {label.min().item()}"
            raise ValueError(
                f"label must lie in 0..{(self.num_classes or 0) - 1} for every sample, got {given}. This network knows "
                "no 'no label'; where it was trained with a class for that, give null_label=."
            )
        return label


class DiffusersNetwork(TimestepNetwork):
    r"""A network of diffusers by its class and configuration, as a checkpoint keeps it; a `TimestepNetwork`.

    Args:
        kind: the class, UNet2DModel or DiTTransformer2DModel.
        config: arguments of that class.
        shape: shape of what it takes, (C, H, W).
        num_classes, null_label, time_scale: as in `TimestepNetwork`.

    Raises:
        ValueError: an unknown class, or a value that it refuses.
    """

    def __init__(
        self,
        kind: str,
        config: Mapping[str, Any],
        shape: tuple[int, ...],
        num_classes: int | None = None,
        null_label: int | None = None,
        time_scale: float = 1.0,
    ) -> None:
        one_of(KINDS, kind=kind)
        network = made(kind, config)
        for module in network.modules():
            if hasattr(module, "dropout_prob"):  # of labels, from a generator of its own; losses have label_dropout
                setattr(module, "dropout_prob", 0.0)  # noqa: B010  # typed as a module by torch
        super().__init__(network, num_classes, null_label, time_scale)
        self.kind, self.config, self.shape = kind, dict(config), tuple(shape)

    @staticmethod
    def import_parts() -> Any:
        r"""The package of the network, imported late since that takes seconds."""
        return import_diffusers()


KINDS = ("UNet2DModel", "DiTTransformer2DModel")


def import_diffusers() -> Any:
    r"""The module `diffusers`."""
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    import diffusers
    import diffusers.models

    return diffusers


def made(kind: str, config: Mapping[str, Any]) -> nn.Module:
    r"""A model of diffusers of a class and its arguments, in plain words where it refuses them."""
    try:
        model: nn.Module = getattr(import_diffusers(), kind)(**config)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
        raise ValueError(f"config: {kind} of diffusers refuses it: {' '.join(str(error).split())}") from error
    return model


def prediction_of(prediction_type: str | None) -> str:
    r"""Our name of a diffusers `prediction_type` ("epsilon" unless given)."""
    prediction_type = "epsilon" if prediction_type is None else prediction_type
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(
            f"prediction_type must be one of diffusers' names, got '{prediction_type}'. "
            f"{closest(prediction_type, PREDICTION_TYPES)}"
        )
    return PREDICTION_TYPES[prediction_type]
