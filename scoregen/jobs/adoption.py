r"""A training that goes on from a network of diffusers: model and process are those of `init`.

They are taken where the user left `model` and `sde` as they are; the data have to fit them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scoregen.data import Source
from scoregen.description import node_option
from scoregen.errors import UserError
from scoregen.jobs.picks import AUTO, pick_chart
from scoregen.models.autoencoder import image_shape_of
from scoregen.targets import check_targets

_OPEN = {"model": node_option("model", "auto"), "sde": node_option("sde", "edm")}


def adopted(job: Any, out: Path) -> dict[str, Any] | None:
    r"""The nodes `model` and `sde` of a training from a network of diffusers; None for any other training.

    Args:
        job: the job train. out: its folder.

    Raises:
        UserError: a model, process or chart of the user's beside them, or data that do not fit.
    """
    if job.init is None:
        if job.null_label is not None:
            raise UserError(f"null_label: needs init=..., a network of diffusers, got {job.null_label}. Leave it out.")
        return None
    from scoregen.loading import describe, find

    goes_on = not Path(job.init).exists() and (out / "checkpoints").is_dir()  # without the weights that it began with
    first = find(out if goes_on else job.init, "init")
    config = describe(first, job.null_label)
    if not _is_foreign(config["model"]):
        return None
    check_targets({part: config[part] for part in ("model", "sde")}, trust=job.trust)
    _check_open(job, first)
    _check_data(config["model"], job, first)
    model, sde = dict(config["model"]), dict(config["sde"])
    if "autoencoder" not in model and job.data.range is not None:
        sde["chart"] = dict(pick_chart(job.data))
    return {"model": model, "sde": sde}


def _is_foreign(model: Mapping[str, Any]) -> bool:
    return network_of(model).get("_target_") == "scoregen.models.DiffusersNetwork"


def network_of(model: Mapping[str, Any]) -> Mapping[str, Any]:
    r"""The node of the network inside a model, without adapters."""
    while isinstance(model.get("network"), Mapping):
        model = model["network"]
    return model


def _check_open(job: Any, first: Path) -> None:
    for name, default in _OPEN.items():
        if getattr(job, name) != default():
            raise UserError(f"{name}: the model of '{first}' brings its own. Leave {name}=... out.")
    if job.chart.get("_target_") != AUTO:
        raise UserError(f"chart: the model of '{first}' takes the range of the data to [-1, 1]. Leave chart=... out.")


def _check_data(model: Mapping[str, Any], job: Any, first: Path) -> None:
    source: Source = job.data
    network = network_of(model)
    latent = tuple(network["shape"])
    shape = image_shape_of(model["autoencoder"]["config"], latent) if "autoencoder" in model else latent
    if tuple(source.shape) != shape:
        raise UserError(
            f"data: {source.name} has shape {tuple(source.shape)}, the model of '{first}' makes {shape}. Give data of "
            "that shape (data.size, data.mode)."
        )
    if "autoencoder" in model and source.range not in (None, (0.0, 1.0)):
        raise UserError(f"data: an autoencoder takes images in [0, 1], {source.name} has the range {source.range}.")
    classes = network.get("num_classes")
    if job.conditional and classes is not None and (source.num_classes or 0) > classes:
        raise UserError(
            f"data: {source.name} has {source.num_classes} classes, the model of '{first}' has {classes}. Give "
            "conditional=false, or data of its classes."
        )
