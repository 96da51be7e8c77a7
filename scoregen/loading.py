r"""Models by the place they are at: a checkpoint or run of ours, a folder of diffusers, or a name on the hub."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scoregen import average_lengths, averages, checkpoint, pretrained
from scoregen.checkpoint_shards import shard_files
from scoregen.errors import UserError
from scoregen.models.next_level import fresh_names
from scoregen.storage import digest


def load(
    path: Path | str,
    weights: str = "ema",
    device: torch.device | str | None = None,
    trust: Collection[str] = (),
    null_label: int | None = None,
    ema: float | None = None,
) -> nn.Module:
    r"""A trained model, in evaluation mode.

    Args:
        path: a checkpoint, or a run folder (its last whole checkpoint); a pipeline or model folder of diffusers; or the
            hub id of one, owner/name or owner/name@revision, which is fetched.
        weights: "ema", "model" (the last step's) or "ema:LENGTH"; a folder of diffusers has one set, which is "ema".
        device: where it goes; the CPU unless given.
        trust: your own modules, whose classes a checkpoint may name: ["mynet"]; and places outside it, folders
            ("./pipeline") or hub ids, that its model may read or fetch. What a checkpoint says about trust is not read.
        null_label: of a class-conditional network of diffusers, the class that stands for "no label", for guidance.
        ema: length of the average, 0.08, in place of weights="ema:0.08"; of a run with trainer.ema_snapshots.

    Raises:
        UserError: nothing there, another kind of model, damaged, or what would run code, fetch or cost more than its
            weights say.
    """
    if ema is not None:
        if weights != "ema":
            raise UserError(f"ema: chooses the weights, got ema={ema} and weights={weights}. Give one of them.")
        weights = f"ema:{average_lengths.check_length(ema, 'ema'):g}"
    folder = find(path)
    if not is_foreign(folder):
        _refuse_null_label(folder, null_label)
        return checkpoint.load(path, weights, device, trust)
    if weights != "ema":
        raise UserError(f"weights: '{path}' is of diffusers and has one set, got weights={weights}. Leave it out.")
    model = pretrained.load(folder, null_label)
    return model.to(device).eval() if device is not None else model.eval()


def find(path: Path | str, name: str = "checkpoint") -> Path:
    r"""The folder that `load` reads: a checkpoint, or a folder of diffusers; a hub id is fetched.

    Args:
        path: as for `load`. name: what the path is called in messages.

    Raises:
        UserError: it is neither.
    """
    return pretrained.find(path) or checkpoint.find(path, name)


def is_foreign(folder: Path) -> bool:
    r"""Whether a folder of `find` is of diffusers."""
    return pretrained.find(folder) is not None


def describe(folder: Path, null_label: int | None = None) -> dict[str, Any]:
    r"""The configuration of a folder of `find`, with its nodes `model` and `sde`."""
    if is_foreign(folder):
        return pretrained.describe(folder, null_label)
    _refuse_null_label(folder, null_label)
    return checkpoint.read_config(folder)


def load_init(model: nn.Module, folder: Path) -> None:
    r"""Reads the averaged weights of a folder of `find` into a model of its configuration.

    A network that is told the next level takes the weights of one that is not, and computes the same at first.
    """
    if is_foreign(folder):
        pretrained.load_weights(model, folder)
    else:
        checkpoint.load_weights(model, folder / "ema.safetensors", optional=fresh_names(model))


def weights_digest(folder: Path, weights: str) -> str:
    r"""The digest of the weights of a folder of `find`."""
    if is_foreign(folder):
        return pretrained.weights_digest(folder)
    if (length := average_lengths.length_of(weights)) is not None:
        return averages.digest_of(folder, length)
    if shard_files(folder):  # whose state.json has the digest of each
        return str(checkpoint.read_state(folder)["sha256"])
    return digest(folder / f"{weights}.safetensors")


def _refuse_null_label(folder: Path, null_label: int | None) -> None:
    if null_label is not None:
        raise UserError(
            f"null_label: is for networks of diffusers, got null_label={null_label} for '{folder}', which knows its "
            "own. Leave it out."
        )
