r"""The families of models that are read: a folder of diffusers to nodes of this package, and where the weights go.

| family | recognised by | becomes |
|---|---|---|
| U-Net of pixels | a `UNet2DModel` and a scheduler | `Denoiser` of a `DiffusersNetwork` |
| DiT | `DiTPipeline` | `LatentDenoiser` of a `DiffusersNetwork` and an `Autoencoder` |
| Stable Diffusion 1, 2 | `StableDiffusionPipeline` and its variants for pictures | `LatentDiffusion` |

A network alone has no process; its scheduler is looked for in it and beside it.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scoregen.errors import UserError
from scoregen.models.adapter import import_diffusers
from scoregen.models.interop.folder import Folder
from scoregen.models.interop.schedulers import Process, process_of
from scoregen.parallel import say_once
from scoregen.sde.additive import EDM, RectifiedFlow
from scoregen.sde.discrete import DiscretePath
from scoregen.sde.process import SDE

_PIXELS = {"_target_": "scoregen.sde.Affine", "scale": 2.0, "shift": -1.0}
_SCHEDULER = "scheduler_config.json"


@dataclass(frozen=True)
class Family:
    r"""What a folder holds, in the terms of this package.

    Args:
        config: as that of a run: the nodes `model` and, for a denoiser, `sde`, and what is known of the data.
        weights: parts of the folder, each with the name that its tensors have in the model.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, str] = field(default_factory=dict)


def family_of(path: Path, null_label: int | None = None) -> Family:
    r"""What a folder of diffusers holds.

    Args:
        path: of a pipeline or a model.
        null_label: the class of a class-conditional network that stands for "no label".

    Raises:
        UserError: a model that is not known, or settings that no denoiser has.
    """
    folder = Folder(path)
    try:
        if folder.has("model_index.json"):
            return _pipeline(folder, null_label)
        if folder.has_parts():
            return _network(folder, folder.read("unet/config.json"), "unet", _read_scheduler(folder), null_label)
        return _network(folder, folder.read("config.json"), "", _scheduler_beside(folder), null_label)
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, UserError) else UserError(f"checkpoint: '{path}': {error}") from error


def _pipeline(folder: Folder, null_label: int | None) -> Family:
    index = folder.read("model_index.json")
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise UserError(
            f"checkpoint: '{folder.path}' comes with a pipeline of its own code ({name}), which is not run."
        )
    for start, reason in REFUSED.items():
        if name.startswith(start):
            raise UserError(f"checkpoint: '{folder.path}' is a {name}, {reason}")
    if name in _TEXT_TO_IMAGE:
        return _stable_diffusion(folder, null_label)
    for part, read in (("transformer", _dit), ("unet", _unet)):
        given = index.get(part)
        if isinstance(given, list) and given[-1] in NETWORKS and (name == "DiTPipeline") == (part == "transformer"):
            place = part if (folder.path / part).is_dir() else ""  # the first pipelines had all parts in one folder
            config, scheduler = folder.read(str(Path(place, "config.json"))), _read_scheduler(folder)
            return read(folder, config, place, scheduler, null_label)
    raise UserError(
        f"checkpoint: '{folder.path}' is a {name}, which is not read. Known are pipelines of a UNet2DModel (DDPM, "
        "DDIM, PNDM, EDM, ConsistencyModel, flow matching), DiTPipeline and StableDiffusionPipeline 1 and 2."
    )


def _network(folder: Folder, config: Mapping[str, Any], part: str, scheduler: Any, null_label: int | None) -> Family:
    name = str(config.get("_class_name"))
    if name != "UNet2DModel":
        whole = " Give its whole pipeline." if name in NETWORKS else ""
        raise UserError(f"checkpoint: '{folder.path}' holds a {name}, not a UNet2DModel.{whole}")
    return _unet(folder, config, part, scheduler, null_label)


def _read_scheduler(folder: Folder) -> dict[str, Any]:
    return folder.read(_SCHEDULER if folder.has(_SCHEDULER) else f"scheduler/{_SCHEDULER}")


def _scheduler_beside(folder: Folder) -> dict[str, Any]:
    r"""The scheduler of a model: in its folder, or of the pipeline that the folder is in."""
    for place in (folder, Folder(folder.path / "scheduler"), Folder(folder.path.resolve().parent / "scheduler")):
        if place.has(_SCHEDULER):
            return place.read(_SCHEDULER)
    raise UserError(
        f"checkpoint: '{folder.path}' is a network without a scheduler, which says what noise it was trained on. Put "
        f"{_SCHEDULER} into it (scheduler.save_pretrained), or give the folder of the pipeline."
    )


def _unet(
    folder: Folder, config: Mapping[str, Any], part: str, scheduler: Mapping[str, Any], null_label: int | None
) -> Family:
    _check_class(folder, config, part, "UNet2DModel")
    if config.get("time_embedding_type", "positional") != "positional" or config.get("class_embed_type"):
        named = {key: config.get(key) for key in ("time_embedding_type", "class_embed_type")}
        raise UserError(
            f"checkpoint: '{folder.path}' has embeddings of another kind than timesteps and labels: {named}."
        )
    shape = _shape(folder, config)
    classes = config.get("num_class_embeds")
    network = {"shape": shape, **_labels(folder, classes, null_label)}
    process = process_of(scheduler)
    node = _denoiser("scoregen.models.Denoiser", process, _node("UNet2DModel", config, network, process))
    return Family({"model": node, "sde": sde_node(process.sde, _PIXELS), **_images()}, {part: "network.model."})


def _dit(
    folder: Folder, config: Mapping[str, Any], part: str, scheduler: Mapping[str, Any], null_label: int | None
) -> Family:
    _check_class(folder, config, part, "DiTTransformer2DModel", "Transformer2DModel")
    if null_label is not None:
        raise UserError(f"null_label: '{folder.path}' has a class of its own for 'no label'. Leave null_label out.")
    coder = folder.read("vae/config.json")
    _check_class(folder, coder, "vae", "AutoencoderKL")
    shape, classes = _shape(folder, config), int(config.get("num_embeds_ada_norm") or 1000)
    if shape[0] != coder.get("latent_channels", 4):
        raise UserError(
            f"checkpoint: '{folder.path}' does not fit together: its transformer takes {shape[0]} channels, its "
            f"autoencoder gives {coder.get('latent_channels', 4)}."
        )
    process = process_of(scheduler)
    network = {"shape": shape, "num_classes": classes, "null_label": classes}
    node = _denoiser(
        "scoregen.models.LatentDenoiser", process, _node("DiTTransformer2DModel", config, network, process)
    )
    node["autoencoder"] = {
        "_target_": "scoregen.models.Autoencoder",
        "kind": "AutoencoderKL",
        "config": arguments("AutoencoderKL", coder),
    }
    weights = {part: "network.model.", "vae": "autoencoder.vae."}
    names = folder.read("model_index.json").get("id2label")
    return Family({"model": node, "sde": sde_node(process.sde, None), **_images(names, classes)}, weights)


def _images(names: Any = None, classes: int = 0) -> dict[str, Any]:
    r"""What a run would record of the data: images in [0, 1], and the names of the classes where all have one."""
    listed = [names.get(str(k)) for k in range(classes)] if isinstance(names, Mapping) else []
    named = bool(listed) and all(isinstance(name, str) for name in listed)
    return {"dataset": {"range": [0.0, 1.0], "classes": listed if named else None}}


def _stable_diffusion(folder: Folder, null_label: int | None) -> Family:
    if null_label is not None:
        raise UserError("null_label: 'no label' of a text-to-image pipeline is the empty prompt. Leave it out.")
    node = {"_target_": "scoregen.models.LatentDiffusion", "pipeline": str(folder.path), "rank": None}
    return Family({"model": node, **_images()})


def _denoiser(target: str, process: Process, network: Mapping[str, Any]) -> dict[str, Any]:
    settings = {"sigma_data": process.sigma_data, "prediction": process.prediction, "time": process.time}
    return {"_target_": target, **settings, "network": dict(network)}


def _node(kind: str, config: Mapping[str, Any], network: Mapping[str, Any], process: Process) -> dict[str, Any]:
    found = {"_target_": "scoregen.models.DiffusersNetwork", "kind": kind, "config": arguments(kind, config)}
    return {**found, **network, "time_scale": process.time_scale}


def sde_node(sde: SDE, chart: Mapping[str, Any] | None) -> dict[str, Any]:
    r"""The node of a process of `process_of`, in a chart."""
    own: dict[str, Any]
    if isinstance(sde, DiscretePath):
        own = {"alphas_cumprod": sde.alphas_cumprod.tolist()}
    elif isinstance(sde, RectifiedFlow):
        own = {"shift": sde.shift_factor}
    else:
        assert isinstance(sde, EDM)  # the processes of `process_of`
        own = {"sigma_min": sde.sigma_min, "sigma_max": sde.sigma_max, "rho": sde.rho}
    return {"_target_": f"scoregen.sde.{type(sde).__name__}", **own, "chart": None if chart is None else dict(chart)}


def arguments(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    r"""The arguments of a class of diffusers in a configuration; says which others are left out."""
    known = inspect.signature(getattr(import_diffusers(), kind).__init__).parameters
    found, strange = {}, []
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key in known and _is_plain(value):
            found[key] = value
        elif value not in (None, False, []):
            strange.append(key)
    if strange:
        say_once(f"checkpoint: {kind} of this diffusers does not know {', '.join(sorted(strange))}; left out.")
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(inner) for inner in value)
    return value is None or isinstance(value, bool | int | float | str)


def _check_class(folder: Folder, config: Mapping[str, Any], part: str, *kinds: str) -> None:
    name = config.get("_class_name", kinds[0])
    if name not in kinds:
        raise UserError(f"checkpoint: '{folder.path / part}' must hold a {kinds[0]}, got a {name!r:.60}.")


def _shape(folder: Folder, config: Mapping[str, Any]) -> list[int]:
    r"""The shape (C, H, W) of what a network takes."""
    channels, out, size = config.get("in_channels"), config.get("out_channels"), config.get("sample_size")
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list) or len(sides) != 2 or not all(type(n) is int and n > 0 for n in [channels, *sides]):
        raise UserError(
            f"checkpoint: '{folder.path}' does not say the size of its images: in_channels={channels!r}, "
            f"sample_size={size!r}. Write them into its config.json."
        )
    if out not in (None, channels, 2 * (channels or 0)):  # twice: a learned variance
        raise UserError(
            f"checkpoint: '{folder.path}' takes {channels} channels and gives {out}: a network with more inputs than "
            "the noisy image (super-resolution, inpainting) is not read."
        )
    return [int(channels or 0), *sides]


def _labels(folder: Folder, classes: Any, null_label: int | None) -> dict[str, Any]:
    if null_label is None:
        return {"num_classes": classes, "null_label": None}
    if not classes:
        raise UserError(f"null_label: '{folder.path}' is unconditional, got null_label={null_label}. Leave it out.")
    if not 0 <= null_label < classes:
        raise UserError(f"null_label: must lie in 0..{classes - 1}, the classes of the network, got {null_label}.")
    return {"num_classes": classes - (null_label == classes - 1), "null_label": null_label}


_TEXT_TO_IMAGE = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
NETWORKS = ("UNet2DModel", "DiTTransformer2DModel", "Transformer2DModel")
REFUSED = {
    "StableDiffusionXL": "whose U-Net also takes the size of the picture and a second text. Read are 1 and 2.",
    "StableDiffusion3": "whose network takes three texts. Read are Stable Diffusion 1 and 2.",
    "StableDiffusionInpaint": "whose U-Net also takes the picture and a mask. Give a plain text-to-image pipeline.",
    "StableDiffusionControlNet": "whose U-Net also takes a control picture. Give a plain text-to-image pipeline.",
    "StableDiffusionUpscale": "whose U-Net also takes the small picture. Give a plain text-to-image pipeline.",
    "StableDiffusionInstructPix2Pix": "whose U-Net also takes the picture. Give a plain text-to-image pipeline.",
    "StableDiffusionDepth2Img": "whose U-Net also takes a map of depths. Give a plain text-to-image pipeline.",
    "Flux": "whose network takes two texts. Read are Stable Diffusion 1 and 2.",
    "LDM": "whose latents are those of a vector-quantised autoencoder. Give a model of pixels.",
    "ScoreSdeVe": "whose network is told the noise itself. Train one with model=unet sde=ve.",
    "KarrasVe": "whose network is told another noise than its scheduler says.",
}
