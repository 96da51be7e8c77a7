r"""Classifiers of torchvision, timm and transformers, with the size and normalisation that their libraries state.

Nothing is fetched unless the user asks: classifier_weights=pretrained, or classifier=hf:OWNER/NAME.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from scoregen.errors import UserError, closest
from scoregen.smoothing.classifier_weights import PRETRAINED, filled
from scoregen.smoothing.preparation import ClassifierInput


class Found(NamedTuple):
    r"""A classifier and what it wants its images to be, None where that is not said."""

    classifier: nn.Module
    wants: ClassifierInput | None


def from_torchvision(name: str, weights: str | None) -> Found:
    r"""torchvision:NAME."""
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UserError(f"classifier: torchvision has no classifier '{name}'. {closest(name, known)}")
    default = models.get_model_weights(name).DEFAULT

    def make(classes: int | None) -> nn.Module:
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        model: nn.Module = models.get_model(name, weights=None, **_quiet(name), **options)
        return model

    transform = default.transforms()
    wants = ClassifierInput(
        mean=list(transform.mean),
        std=list(transform.std),
        size=transform.crop_size[0],
        resize=transform.resize_size[0],
        interpolation=_interpolation(transform.interpolation.value),
    )
    network = _weighted(f"torchvision:{name}", weights, make, lambda: models.get_model(name, weights=default))
    return Found(network, wants)


def from_timm(name: str, weights: str | None) -> Found:
    r"""timm:NAME."""
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    timm = _extra("timm", f"timm:{name}")
    if not timm.is_model(name):  # names of other places, hf-hub:OWNER/NAME, would be fetched
        raise UserError(f"classifier: timm has no model '{name}'. {_nearest(name.split('.')[0], timm.list_models())}")

    def make(classes: int | None) -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
        return model

    network = _weighted(f"timm:{name}", weights, make, lambda: timm.create_model(name, pretrained=True))
    said: Mapping[str, Any] = timm.data.resolve_model_data_config(network)
    height, width = said["input_size"][1:]
    size: int | list[int] = height if height == width else [height, width]
    cut = said["crop_pct"] < 1 and said.get("crop_mode") != "squash" and isinstance(size, int)
    return Found(
        network,
        ClassifierInput(
            mean=list(said["mean"]),
            std=list(said["std"]),
            size=size,
            resize=int(height / said["crop_pct"]) if cut else None,
            interpolation=_interpolation(said["interpolation"]),
        ),
    )


def from_transformers(place: str, weights: str | None) -> Found:
    r"""hf:FOLDER, or hf:OWNER/NAME, which is fetched."""
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    transformers = _extra("transformers", f"hf:{place}")
    local = Path(place).is_dir()
    if not local and (place.count("/") != 1 or place[0] in "./~"):
        raise UserError(
            f"classifier: hf:{place} must be a folder, or an id of the hub, OWNER/NAME; there is no folder."
        )
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    kind = transformers.AutoModelForImageClassification

    def make(classes: int | None) -> nn.Module:
        labels = {} if classes is None else {"num_labels": classes}
        model: nn.Module = kind.from_config(transformers.AutoConfig.from_pretrained(place, **options, **labels))
        return model

    try:
        network = _whole(kind, place, options) if weights is None else filled(make, weights, f"hf:{place}")
        processor = _processor(transformers, place, options)
    except UserError:
        raise
    except Exception as error:  # a file that is missing or of another kind, or what the hub could not give
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"classifier: hf:{place} cannot be read as an image classifier: {first:.300}") from error
    return Found(network, processor)


def _whole(kind: Any, place: str, options: Mapping[str, Any]) -> nn.Module:
    r"""A model with all of its weights; one without a head of its own would get a random one."""
    network, said = kind.from_pretrained(place, output_loading_info=True, **options)
    lacking = sorted({*map(str, said["missing_keys"]), *map(str, said["mismatched_keys"])})
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UserError(
            f"classifier: hf:{place} has no weights for {lacking[0]}{more}: it is no classifier yet. Give "
            "classifier_weights=FILE of one, or a model that was fine-tuned."
        )
    found: nn.Module = network
    return found


def _processor(transformers: Any, place: str, options: Mapping[str, Any]) -> ClassifierInput | None:
    r"""What the image processor of a model does, as far as it is resizing and normalisation."""
    if Path(place).is_dir() and not (Path(place) / "preprocessor_config.json").is_file():
        return None
    said = transformers.AutoImageProcessor.from_pretrained(place, **options)
    mean = std = size = resize = None
    if getattr(said, "do_normalize", False):
        mean, std = list(said.image_mean), list(said.image_std)
    if getattr(said, "do_rescale", True) and abs(said.rescale_factor * 255 - 1) > 1e-6:
        raise UserError(
            f"classifier: hf:{place} scales bytes by {said.rescale_factor}, not by 1/255. Give a function that builds "
            "it, classifier=MODULE:FUNCTION."
        )
    if getattr(said, "do_resize", False):
        size = resize = _sides(said.size)
        if getattr(said, "crop_pct", None) and isinstance(size, int) and size < 384:  # as ConvNeXt's processor does
            resize = int(size / said.crop_pct)
    if getattr(said, "do_center_crop", False):
        size = _sides(said.crop_size)
    return ClassifierInput(mean=mean, std=std, size=size, resize=resize, interpolation=_interpolation(said.resample))


def _sides(size: Any) -> int | list[int]:
    r"""{height, width} as a list, {shortest_edge} as a number."""
    known = dict(size) if isinstance(size, Mapping) else dict(vars(size))
    if known.get("height"):
        return [int(known["height"]), int(known["width"])]
    return int(known["shortest_edge"])


def _interpolation(name: Any) -> Any:
    r"""Bilinear for what is bilinear, bicubic for what is sharper: nearest is not offered."""
    return "bilinear" if name in ("bilinear", 2) else "bicubic"


def _weighted(
    name: str, weights: str | None, make: Callable[[int | None], nn.Module], fetch: Callable[[], nn.Module]
) -> nn.Module:
    if weights is None:
        library = name.partition(":")[0]
        raise UserError(
            f"classifier_weights: {name} has none of its own. Give classifier_weights=FILE, or "
            f"classifier_weights={PRETRAINED}, which fetches those of {library}."
        )
    if weights != PRETRAINED:
        return filled(make, weights, name)
    try:
        return fetch()
    except Exception as error:  # the libraries raise what their downloads raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"classifier: the weights of {name} could not be fetched ({first:.200}).") from error


def _quiet(name: str) -> dict[str, Any]:
    r"""Two networks of torchvision announce that their first weights are slow."""
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _nearest(name: str, known: list[str]) -> str:
    r"""The nearest of a thousand names; no list of all."""
    nearest = closest(name, known)
    return nearest if nearest.startswith("Did") else "See timm.list_models()."


def _extra(library: str, source: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise UserError(
            f"classifier: {source} needs {library} ({error}). Install it: pip install 'scoregen[classifiers]'."
        ) from error
