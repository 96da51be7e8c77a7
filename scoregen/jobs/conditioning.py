r"""What the jobs that sample from a checkpoint share: its shape, units, labels, guidance and precision."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from scoregen.data import identity
from scoregen.errors import UserError, closest

Precision = Literal["no", "bf16"]
Label = int | str | list[int] | list[str] | None


def known_of(checkpoint: Path) -> identity.Known:
    r"""What a checkpoint says of the data of its training."""
    from scoregen.loading import describe

    return identity.known(describe(checkpoint), f"'{checkpoint}'")


def find_checkpoint(checkpoint: str | None) -> Path:
    r"""The absolute path of the checkpoint that a job was given."""
    from scoregen.loading import find

    if checkpoint is None:
        raise UserError(
            "checkpoint: a value is required. Give checkpoint=outputs/.../checkpoints/last, a run folder, or a folder "
            "of diffusers."
        )
    return find(checkpoint).resolve()


def autocast(precision: Precision) -> AbstractContextManager[Any]:
    r"""The network in bfloat16, or ("no") as it is; samplers compute in float32 or float64 either way."""
    import torch

    from scoregen.parallel import device

    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16")


def labels_of(label: Label, n: int, model: Any, seed: int, names: Sequence[str] | None = None) -> Any:
    r"""The labels of n samples, (n,) int64, or None.

    Args:
        label: one for all, a list that is repeated, "all" (the classes in turn) or "random" (drawn for each sample); a
            class by its number or its name.
        n: number of samples. model: it knows the classes. seed: seed of random labels. names: names of the classes.

    Raises:
        UserError: labels that the model does not have.
    """
    import torch

    from scoregen.rng import Stream, generator

    if label is None:
        return None
    classes = getattr(model, "num_classes", None)
    if not classes:
        raise UserError(f"label: the model is unconditional, got label={label}. Leave it out.")
    if label == "random":  # independent draws, as data are: what kernel distances expect
        keys = (generator(seed, Stream.LABEL, i) for i in range(n))
        return torch.cat([torch.randint(classes, (1,), generator=g) for g in keys])
    given: Sequence[int | str] = label if isinstance(label, list) else [label]
    if not given:
        raise UserError("label: must not be an empty list. Give label=all, label=3 or label=[0,1].")
    values = list(range(classes)) if label == "all" else [class_number(value, classes, names) for value in given]
    return torch.tensor([values[i % len(values)] for i in range(n)])


def class_number(value: int | str, classes: int, names: Sequence[str] | None) -> int:
    r"""The number of a class that is given by its number or its name.

    Raises:
        UserError: there is no such class, or a number that is also the name of another class.
    """
    if isinstance(value, str) and names is not None:
        if value not in names:
            raise UserError(
                f"label: there is no class '{value}' (and it is not 'all' or 'random'). {closest(value, names)}"
            )
        return list(names).index(value)
    if type(value) is not int or not 0 <= value < classes:
        unnamed = "; the classes of this checkpoint have no names" if isinstance(value, str) else ""
        raise UserError(f"label: must lie in 0..{classes - 1} (or be 'all' or 'random'), got {value!r}{unnamed}.")
    if names is not None and str(value) in names and names[value] != str(value):
        raise UserError(
            f"label: class number {value} is named '{names[value]}', and another class is named '{value}'. Give a "
            f"name: label=\"'{value}'\" or label=\"'{names[value]}'\"."
        )
    return value


def guided(model: Any, guidance: float, labels: Any, weak: Any = None) -> Any:
    r"""The denoiser under guidance: away from a weaker model, or from itself without labels; itself where it is 1.

    Args:
        model: the denoiser. guidance: the scale. labels: of the samples, or None. weak: of autoguidance, or None.
    """
    if guidance == 1:
        return model
    from scoregen.models import Autoguidance, ClassifierFreeGuidance

    if weak is not None:
        return Autoguidance(model, weak, guidance)
    if labels is None:
        raise UserError(
            f"guidance: needs labels, got guidance={guidance} without. Give label=all, label=3 or label=[0,1]."
        )
    try:
        return ClassifierFreeGuidance(model, guidance)
    except ValueError as error:
        raise UserError(f"guidance: {error}") from error


def told_unlabelled(checkpoint: Path, labels: Any, guidance: float) -> list[str]:
    r"""A line where a network that never saw "no label" in its training is asked without a label.

    Args:
        checkpoint: its folder. labels: of the samples, or None. guidance: the scale; other than 1 asks without, too.
    """
    from scoregen.loading import describe

    config = describe(checkpoint)
    dropped = values_of(config.get("loss"), "label_dropout")
    if not dropped or any(dropped) or not any(values_of(config.get("model"), "num_classes")):
        return []
    if labels is not None and guidance == 1:
        return []
    never = "the training had loss.label_dropout=0, so that the network never learned to do without one"
    if labels is None:
        return [f"label: none is given, and {never}. Give label=all."]
    return [f"guidance: {guidance:g} asks for samples without a label, and {never}. Give guidance=1."]


def values_of(node: Any, key: str) -> list[Any]:
    r"""The values of a key in a node and in the nodes inside it."""
    if not isinstance(node, dict):
        return []
    return [*([node[key]] if key in node else []), *(value for part in node.values() for value in values_of(part, key))]


def weak_weights(autoguidance: bool | str, weights: str, guidance: float) -> str | None:
    r"""The weights of the weaker model of autoguidance: of the short average, unless others are named; None for none.

    Raises:
        UserError: they are those of the better model, or would guide nothing.
    """
    from scoregen.average_lengths import length_of
    from scoregen.averages import LENGTHS

    if autoguidance is False:
        return None
    weak = f"ema:{LENGTHS[0]:g}" if autoguidance is True else autoguidance
    try:
        same = weights == weak or (length_of(weak) is not None and length_of(weak) == length_of(weights))
    except UserError as error:
        raise UserError(f"autoguidance: {error}") from error
    if same:
        raise UserError(f"autoguidance: must name other weights than weights={weights}, got {weak}.")
    if guidance == 1:
        raise UserError(f"guidance: must differ from 1, which is none, with autoguidance={weak}. Give guidance=2.")
    return weak


def pictured(model: Any, prompts: Sequence[str] | None) -> Any:
    r"""A text-to-image model with its prompts, whose samples are pictures; any other model as it is.

    Raises:
        UserError: prompts for a model that reads none.
    """
    if hasattr(model, "with_prompts"):
        return model.with_prompts(prompts or ()).in_images()
    if prompts is not None:
        raise UserError(f"prompts: are for text-to-image models, got prompts={list(prompts)}. Leave it out.")
    return model


def image_shape(checkpoint: Path, model: Any = None) -> tuple[int, ...]:
    r"""Shape of what the denoiser of a checkpoint makes, (*S).

    Args:
        checkpoint: its folder. model: what was loaded from it, for the job that samples text-to-image models too.
    """
    from scoregen.checkpoint import stated_shape
    from scoregen.loading import describe
    from scoregen.models.autoencoder import image_shape_of

    config = describe(checkpoint)
    outer = node = config["model"]
    while "network" in node:  # adapters stand around a network
        node = node["network"]
    shape = node.get("shape") or stated_shape(config)
    if "pipeline" in outer:
        if model is not None:
            return tuple(model.shape)
        raise UserError(
            f"checkpoint: '{checkpoint}' is a text-to-image pipeline, which this job does not take. Sample it first "
            "(scoregen sample checkpoint=... prompts=[...]), or call it from Python (docs/smooth_lora.md)."
        )
    if "network" not in outer or shape is None:
        raise UserError(
            f"checkpoint: '{checkpoint}' holds no denoiser ({outer['_target_']}). Give one of a diffusion model."
        )
    return image_shape_of(outer["autoencoder"]["config"], shape) if "autoencoder" in outer else tuple(shape)


def require_shape(checkpoint: Path, source: Any) -> None:
    r"""Raises UserError where a checkpoint makes samples of another shape than the data's, or in other units."""
    shape = image_shape(checkpoint)
    if shape != tuple(source.shape):
        raise UserError(f"data: {source.name} has shape {source.shape}, the model makes {shape}. Give its own data.")
    known = known_of(checkpoint).range  # of a checkpoint from elsewhere [0, 1]
    ends = [end for found in (known, source.range) for end in found or (math.inf,)]
    if all(map(math.isfinite, ends)) and tuple(known or ()) != tuple(source.range or ()):
        raise UserError(
            f"data.range: the model was trained on values in {known}, {source.name} has {source.range}. Give its own "
            "data, or their data.range."
        )


def named(weights: str) -> str:
    r"""Weights of a checkpoint in words."""
    from scoregen.average_lengths import length_of

    if weights in ("ema", "model"):
        return "averaged (EMA)" if weights == "ema" else "last step's"
    return f"averaged (length {length_of(weights):g})"


def announced(checkpoint: Path, weights: str) -> str:
    r"""The line that names a checkpoint, its weights, and the least noise that it learned, if that is not all."""
    from scoregen.loading import describe, is_foreign

    if is_foreign(checkpoint):
        return f"checkpoint: {checkpoint}, of diffusers"
    least = describe(checkpoint)["model"].get("least_s", 0)
    learned = f", which learned noise ratios from {least:.3g} on" if least else ""
    return f"checkpoint: {checkpoint}, {named(weights)} weights{learned}"
