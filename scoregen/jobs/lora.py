r"""Adapters in a training: put into the model of a checkpoint, or told the prompts of the data."""

from typing import Any

from torch import nn

from scoregen.config import build
from scoregen.data import Source
from scoregen.errors import UserError
from scoregen.models import LatentDiffusion

_TARGET = "scoregen.models.LoRA"


def adapt(config: dict[str, Any], model: nn.Module) -> None:
    r"""Puts the adapters of `lora` into a model, in place, and into its node of the configuration.

    Args:
        config: of the run; without `lora.rank` nothing is done. model: with the weights of `init`.

    Raises:
        UserError: no `init`, or a model that has no network of its own.
    """
    if not isinstance(config["lora"], dict):
        raise UserError(f"lora: must be a mapping, got {config['lora']!r}. lora.rank=null switches adapters off.")
    given = {key: value for key, value in config["lora"].items() if value is not None}
    if config["lora"].get("rank") is None:
        for key, value in given.items():
            raise UserError(f"lora.{key}: needs lora.rank, which is null, got {value!r}. Give lora.rank=8.")
        return
    if "network" not in config["model"]:
        raise UserError(
            f"lora.rank: must be null for {config['model']['_target_']}, got {given['rank']}. A pipeline has its own "
            "adapters: give model.rank."
        )
    if config["init"] is None:
        raise UserError("lora.rank: adapters need trained weights. Give init=outputs/..., a run or a checkpoint.")
    node = {"_target_": _TARGET} | given
    model.network = build(node, where="lora", network=model.network)
    config["model"] = {**config["model"], "network": {**node, "network": config["model"]["network"]}}


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
