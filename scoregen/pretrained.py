r"""Models of diffusers as checkpoints: found in a folder or on the hub, read from safetensors, never run.

Headers and configurations are bounded as those of our own checkpoints are (`scoregen.sizes`). Nothing is fetched for
what may be a path: a hub id is owner/name or owner/name@revision, where no folder `owner` is.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scoregen.config import build
from scoregen.errors import UserError
from scoregen.failures import translated
from scoregen.models.interop import Folder
from scoregen.models.interop.families import Family, family_of
from scoregen.sizes import build_bounded, header
from scoregen.storage import digest

_HUB = re.compile(r"(?P<owner>\w[\w.-]*)/(?P<name>\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
_OWN_FOLDERS = ("outputs", "multirun")  # of runs: a slip in such a path is no name of somebody on the hub
# parts and their weights; variants of other precision and single files of the whole are left there
_WANTED = (
    "model_index.json",
    "config.json",
    "scheduler_config.json",
    "*/config.json",
    "*/scheduler_config.json",
    "*diffusion_pytorch_model*.safetensors",
    "*diffusion_pytorch_model.safetensors.index.json",
    "text_encoder/model.safetensors",
    "tokenizer/*",
)
_UNWANTED = ("*.fp16.safetensors", "*non_ema*", "safety_checker/*")
# names of attention layers before diffusers 0.17, which its old files keep
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def find(place: Path | str) -> Path | None:
    r"""The folder of diffusers that a place means: itself, or the copy of a hub id; None for anything else.

    Raises:
        UserError: a hub id that cannot be fetched.
    """
    path = Path(place)
    if path.exists():
        return path if Folder(path).exists() else None
    hub = _HUB.fullmatch(str(place))
    if hub is None or hub["owner"] in _OWN_FOLDERS or Path(hub["owner"]).exists():
        return None
    return _fetched(f"{hub['owner']}/{hub['name']}", hub["revision"])


def _fetched(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        found = Path(
            snapshot_download(name, revision=revision, allow_patterns=[*_WANTED], ignore_patterns=[*_UNWANTED])
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"checkpoint: '{name}' is no folder here, and the hub did not give it ({reason}). Give a folder, or the "
            "owner/name of a pipeline with safetensors."
        ) from error
    if not Folder(found).exists():
        raise UserError(f"checkpoint: '{name}' of the hub is no pipeline or model of diffusers. Give another one.")
    return found


def describe(folder: Path, null_label: int | None = None) -> dict[str, Any]:
    r"""The nodes of a folder, `model` and `sde`, as the configuration of a run has them."""
    return dict(family_of(folder, null_label).config)


def load(folder: Path, null_label: int | None = None) -> nn.Module:
    r"""The model of a folder of diffusers.

    Raises:
        UserError: a model that is not known, damaged, or other weights than its configuration says.
    """
    family = family_of(folder, null_label)
    if not family.weights:  # a class that reads the folder itself
        model: nn.Module = build(family.config["model"], trust=(), where="checkpoint")
        return model
    files = _files(folder, family)
    shapes = {name: shape for file, prefix in files.items() for name, shape in _renamed(header(file), prefix).items()}
    nodes = {part: family.config[part] for part in ("model", "sde")}
    model = build_bounded(nodes, shapes, lambda: _build(family.config))
    load_weights(model, folder)
    return model


def load_weights(model: nn.Module, folder: Path) -> None:
    r"""Reads the weights of a folder into its model."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file, prefix in _files(folder, family_of(folder)).items():
        with translated(f"checkpoint: '{file}' is missing or damaged", "Write it anew with save_pretrained."):
            tensors |= _renamed(load_file(file), prefix)
    model.load_state_dict(tensors)


def weights_digest(folder: Path) -> str:
    r"""One digest of all the weights of a folder."""
    family = family_of(folder)
    parts = family.weights or {"unet": "", "vae": ""}
    found = [digest(file) for part in parts for file in Folder(folder).weights(part)]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _build(config: Mapping[str, Any]) -> nn.Module:
    sde = build(config["sde"], trust=(), where="sde")
    model: nn.Module = build(config["model"], trust=(), where="model", sde=sde)
    return model


def _files(folder: Path, family: Family) -> dict[Path, str]:
    return {file: prefix for part, prefix in family.weights.items() for file in Folder(folder).weights(part)}


def _renamed(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found = {}
    for name, tensor in tensors.items():
        for old, new in _RENAMED.items():
            name = name.replace(old, new) if "attentions." in name else name
        found[prefix + name] = tensor
    return found
