r"""Adapters in training: put into the model of a checkpoint, previewed, and written for diffusers."""

import os
import shutil
from typing import Any

import torch
from torch import nn

from scoregen.commands.hooks import SAMPLE_STREAM
from scoregen.config import build
from scoregen.data import Source
from scoregen.errors import UserError
from scoregen.parallel import rank
from scoregen.pictures import save_grid
from scoregen.rng import generators
from scoregen.samplers import Sampler
from scoregen.training import Hook, Moment

_TARGET = "scoregen.models.LoRA"


def adapt(config: dict[str, Any], model: nn.Module) -> None:
    r"""Puts the adapters of `lora` into a model, in place, and into its node of the configuration.

    Args:
        config: of the run; without `lora.rank` nothing is done. model: with the weights of `init`.

    Raises:
        UserError: no `init`, or a model that has no network of its own.
    """
    if not isinstance(config["lora"], dict):
        raise UserError(f"lora: must be a mapping, got {config['lora']!r}; adapters are off with lora.rank=null.")
    if config["lora"].get("rank") is None:
        given = [key for key, value in config["lora"].items() if value is not None]
        if given:
            raise UserError(f"lora.{given[0]}: needs lora.rank=..., which is null, got {config['lora'][given[0]]!r}.")
        return
    node = {"_target_": _TARGET} | {key: value for key, value in config["lora"].items() if value is not None}
    if "network" not in config["model"]:
        raise UserError(
            f"lora.rank: must be null for {config['model']['_target_']}, got {node['rank']}; a pipeline has its own, "
            "model.rank."
        )
    if config["init"] is None:
        raise UserError(
            "lora.rank: adapters need trained weights beside them; give init=outputs/... with a checkpoint."
        )
    model.network = build(node, where="lora", network=model.network)
    config["model"] = {**config["model"], "network": {**node, "network": config["model"]["network"]}}


def give_prompts(model: Any, source: Source) -> None:
    r"""Tells a text-to-image model which texts the labels of the data are.

    Raises:
        UserError: the data have no captions.
    """
    if not hasattr(model, "with_prompts"):
        return
    if not hasattr(source, "captions"):
        raise UserError(
            f"data: a {type(model).__name__} is trained on images with captions, {source.name} has none; give "
            "data=captions data.path=FOLDER."
        )
    model.with_prompts(source.captions)


class ExportLoRA(Hook):
    r"""Writes the averaged adapters of a pipeline into the folder `lora` of the run, for `pipe.load_lora_weights`.

    Args:
        model: the one that is trained. every: steps.

    Raises:
        ValueError: a model that is no pipeline.
    """

    def __init__(self, model: nn.Module, every: int) -> None:
        super().__init__(every)
        if not hasattr(model, "save_lora"):
            raise ValueError(f"every must be null for a {type(model).__name__}, which is no pipeline.")

    def __call__(self, moment: Moment) -> None:
        if rank() != 0:
            return
        folder, partial = moment.folder / "lora", moment.folder / ".lora.partial"
        shutil.rmtree(partial, ignore_errors=True)
        moment.model.save_lora(partial)
        folder.mkdir(exist_ok=True)
        for file in partial.iterdir():
            os.replace(file, folder / file.name)
        partial.rmdir()


class PromptPreview(Hook):
    r"""Pictures of the first prompts from fixed seeds.

    Args:
        sampler: makes them. source: gives their shape.
        every: steps. n: pictures. seed: of their noise.
    """

    def __init__(self, sampler: Sampler, source: Source, every: int, n: int = 4, seed: int = 0) -> None:
        super().__init__(every)
        if n < 1:
            raise ValueError(f"n must be >= 1, got n={n}.")
        self.sampler, self.source, self.n, self.seed = sampler, source, n, seed

    def __call__(self, moment: Moment) -> None:
        if rank() != 0:
            return
        model: Any = moment.model
        label = torch.arange(self.n, device=next(model.parameters()).device) % model.num_classes
        draws = generators(self.seed, SAMPLE_STREAM, 0, range(self.n))
        shape = model.latent_shape(self.source.shape)
        pictures = model.images(self.sampler(model, (self.n, *shape), label=label, generator=draws))
        path = save_grid(pictures, moment.folder / "samples" / f"step_{moment.step:08d}.png")
        moment.picture("samples", path)
