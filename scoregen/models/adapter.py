r"""A network trained with diffusers as a denoiser.

A DDPM network takes x = u/sqrt(1 + s^2) and the index k of a level; that is the input of a denoiser with sigma_data =
1.
"""

from typing import Any

from torch import Tensor, nn

from scoregen.errors import closest
from scoregen.models.denoiser import Denoiser
from scoregen.sde.chart import Chart
from scoregen.sde.discrete import DiscretePath
from scoregen.sde.path import as_time

# diffusers' `prediction_type` and ours
PREDICTION_TYPES = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


class TimestepNetwork(nn.Module):
    r"""(z, c_noise = log(s)/4, label) -> model(z, k(s), class_labels).sample, for k interpolated in log s.

    Args:
        model: a diffusers network such as `UNet2DModel`. A learned variance (more channels out than in) is dropped.
        path: the levels it was trained on.
    """

    def __init__(self, model: nn.Module, path: DiscretePath) -> None:
        super().__init__()
        self.model, self.path = model, path
        self.num_classes: int | None = getattr(model.config, "num_class_embeds", None)

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        index = self.path.index_of((4 * as_time(c_noise)).exp()).to(c_noise)
        if self.num_classes is not None and (label is None or bool((label < 0).any())):
            given = "None" if label is None else f"values down to {label.min().item()}"
            raise ValueError(
                f"label must lie in 0..{self.num_classes - 1} for every sample, got {given}. This network knows no "
                "'no label'."
            )
        classes = {} if self.num_classes is None else {"class_labels": label}
        output: Tensor = self.model(z, index, **classes).sample
        return output[:, : z.shape[1]]


def from_diffusers(model: nn.Module, scheduler: Any, chart: Chart | None = None) -> Denoiser:
    r"""The denoiser of a diffusers network, on the path of its scheduler.

    Args:
        model: the network, `pipeline.unet`.
        scheduler: `pipeline.scheduler`, for its `alphas_cumprod` and `prediction_type`.
        chart: data to model coordinates; `Affine(2, -1)` for images in [0, 1] and a network of [-1, 1].

    Raises:
        TypeError: a scheduler without `alphas_cumprod`. ValueError: an unknown prediction type.
    """
    path = DiscretePath.from_scheduler(scheduler, chart)
    return Denoiser(TimestepNetwork(model, path), path, 1.0, prediction_of(scheduler.config.get("prediction_type")))


def prediction_of(prediction_type: str | None) -> str:
    r"""Our name of a diffusers `prediction_type` ("epsilon" unless given)."""
    prediction_type = "epsilon" if prediction_type is None else prediction_type
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(
            f"prediction_type must be one of diffusers' names, got '{prediction_type}'. "
            f"{closest(prediction_type, PREDICTION_TYPES)}"
        )
    return PREDICTION_TYPES[prediction_type]
