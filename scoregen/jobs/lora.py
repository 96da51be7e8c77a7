r"""Adapters in a training: put into the model of a checkpoint, or told the prompts of the data."""

from typing import Any

from torch import nn

from scoregen.config import Node, build
from scoregen.data import Source
from scoregen.errors import UserError
from scoregen.models import LatentDiffusion


def adapt(lora: Node, model: Node, init: str | None, built: Any) -> Node:
    r"""Puts adapters into a model, in place.

    Args:
        lora: node of the adapters; without a rank nothing is done. model: node of the model.
        init: the checkpoint that the weights come from. built: the model, with these weights.

    Returns:
        The node of the model with its adapters.

    Raises:
        UserError: no `init`, or a model that has no network of its own.
    """
    given = {key: value for key, value in lora.items() if value is not None}
    if "rank" not in given:
        for key in given.keys() - {"_target_"}:
            raise UserError(f"lora.{key}: needs lora.rank, which is null, got {given[key]!r}. Give lora.rank=8.")
        return model
    if "network" not in model:
        raise UserError(
            f"lora.rank: must be null for {model['_target_']}, got {given['rank']}. A pipeline has its own adapters: "
            "give model.rank."
        )
    if init is None:
        raise UserError("lora.rank: adapters need trained weights. Give init=outputs/..., a run or a checkpoint.")
    built.network = build(given, where="lora", network=built.network)
    return Node({**model, "network": {**given, "network": model["network"]}})


def give_prompts(model: nn.Module, source: Source) -> None:
    r"""Tells a text-to-image model which texts the labels of the data are.

    Raises:
        UserError: the data have no captions.
    """
    if not isinstance(model, LatentDiffusion):
        return
    if not hasattr(source, "captions"):
        raise UserError(
            f"data: a {type(model).__name__} is trained on images with captions, {source.name} has none. Give "
            "data=captions data.path=FOLDER."
        )
    model.with_prompts(source.captions)
