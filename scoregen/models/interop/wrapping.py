r"""A network of diffusers that is there already, as a denoiser on the process of its scheduler."""

from typing import Any

from torch import nn

from scoregen.models.adapter import TimestepNetwork
from scoregen.models.denoiser import Denoiser
from scoregen.models.interop.schedulers import process_of
from scoregen.sde.chart import Chart


def from_diffusers(
    model: nn.Module, scheduler: Any, chart: Chart | None = None, null_label: int | None = None
) -> Denoiser:
    r"""The denoiser of a diffusers network, on the process of its scheduler, in the mode (training or not) it is in.

    Args:
        model: the network, `pipeline.unet`.
        scheduler: `pipeline.scheduler`: of a DDPM (its levels and prediction type), EDM, consistency or flow matching.
        chart: data to model coordinates; `Affine(2, -1)` for images in [0, 1] and a network of [-1, 1].
        null_label: the class that the network was trained to take for "no label", for guidance.

    Raises:
        TypeError: another scheduler. ValueError: an unknown prediction type.
    """
    process = process_of(scheduler, chart)
    classes: int | None = getattr(model.config, "num_class_embeds", None)
    network = TimestepNetwork(model, classes, null_label, process.time_scale)
    denoiser = Denoiser(network, process.sde, process.sigma_data, process.prediction, process.time)
    return denoiser.train(model.training)
