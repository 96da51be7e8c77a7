r"""Adapters of a text-to-image pipeline during training: written for diffusers, and previewed."""

import os
import shutil
from typing import cast

import torch
from torch import nn

from scoregen.checks import at_least
from scoregen.data import Source
from scoregen.models import LatentDiffusion
from scoregen.parallel import rank
from scoregen.pictures import save_grid
from scoregen.rng import Stream, generators
from scoregen.samplers import Sampler
from scoregen.training import Hook, Moment


class ExportLoRA(Hook):
    r"""Writes the averaged adapters of a pipeline into the folder `lora` of the run, for `pipe.load_lora_weights`.

    Args:
        model: the one that is trained.
        every: steps between exports.

    Raises:
        ValueError: a model that is no pipeline.
    """

    def __init__(self, model: nn.Module, every: int) -> None:
        super().__init__(every)
        if not hasattr(model, "save_lora"):
            raise ValueError(f"every must be null for a {type(model).__name__}, which is no pipeline.")
        self.model = model

    def __call__(self, moment: Moment) -> None:
        if rank() != 0:
            return
        folder, partial = moment.folder / "lora", moment.folder / ".lora.partial"
        shutil.rmtree(partial, ignore_errors=True)
        cast(LatentDiffusion, moment.model).save_lora(partial)
        folder.mkdir(exist_ok=True)
        for file in partial.iterdir():
            os.replace(file, folder / file.name)
        partial.rmdir()


class PromptPreview(Hook):
    r"""Pictures of the first prompts from fixed seeds.

    Args:
        sampler: makes them.
        source: gives their shape.
        every: steps between previews.
        n: pictures.
        seed: seed of their noise.

    Raises:
        ValueError: values out of range.
    """

    def __init__(self, sampler: Sampler, source: Source, every: int, *, n: int = 4, seed: int = 0) -> None:
        super().__init__(every)
        at_least(1, n=n)
        self.sampler, self.source, self.n, self.seed = sampler, source, n, seed

    def __call__(self, moment: Moment) -> None:
        if rank() != 0:
            return
        model = cast(LatentDiffusion, moment.model)
        label = torch.arange(self.n, device=next(model.parameters()).device) % (model.num_classes or 1)
        draws = generators(self.seed, Stream.PREVIEW, 0, range(self.n))
        shape = model.latent_shape(self.source.shape)
        pictures = model.images(self.sampler(model, (self.n, *shape), label=label, generator=draws))
        path = save_grid(pictures, moment.folder / "samples" / f"step_{moment.step:08d}.png")
        moment.picture("samples", path)
