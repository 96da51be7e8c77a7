r"""Checkpoints: a folder of safetensors and text, written beside its place and renamed.

    config.yaml            the resolved configuration of the run
    model.safetensors      weights of the last step
    ema.safetensors        their exponential moving average (what samples well)
    optimizer.safetensors  state for resuming, with its scalars in state.json
    powers.safetensors     averages of two lengths, where snapshots of them are kept (`scoregen.averages`)
    state.json             format, step, counters, and the SHA-256 of the other files

In a training that is cut over the processes the three are shards on the way (`scoregen.checkpoint_shards`).

Nothing in it is code: loading builds only allow-listed classes (`scoregen.config`) and reads tensors.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoregen import average_lengths, averages, moments
from scoregen.averages import Moment
from scoregen.checkpoint_files import (
    FORMAT,
    find,
    last_whole,
    point_last,
    read_config,
    read_state,
    verify,
    write_state,
)
from scoregen.checkpoint_shards import read_shards, shard_files, shard_shapes
from scoregen.config import Config, accepts, build
from scoregen.errors import UserError
from scoregen.failures import translated
from scoregen.models import Denoiser
from scoregen.optimizer_state import pack, unpack
from scoregen.sizes import build_bounded, header, misfit, refuse_outside
from scoregen.storage import put_folder, write_yaml
from scoregen.targets import check_targets, modules

__all__ = [
    "FORMAT",
    "Contents",
    "accepts_sde",
    "build_model",
    "contents_of",
    "find",
    "last_whole",
    "load",
    "load_optimizer",
    "load_weights",
    "point_last",
    "read_config",
    "read_state",
    "read_tensors",
    "save",
    "stated_shape",
    "verify",
]

_LOSS = "loss."
_NOT_OF_THE_MODEL = (moments.PREFIX, _LOSS)


@dataclass(frozen=True)
class Contents:
    r"""What a checkpoint holds besides text.

    Args:
        weights: weights of the model, with the moments of the data and the state of the loss.
        averages: of what is trained. optimizer: its tensors. scalars: its plain data.
        powers: averages of the tracked lengths; None for a run that keeps none.
    """

    weights: Mapping[str, Tensor]
    averages: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    scalars: Mapping[str, Any]
    powers: Moment | None = None


def save(folder: Path | str, contents: Contents, *, config: Mapping[str, Any], state: Mapping[str, Any]) -> Path:
    r"""Writes a checkpoint; an interrupted write leaves nothing at `folder`.

    Args:
        folder: where it goes, .../step_00001000.
        contents: its tensors.
        config: plain data.
        state: plain data (step, counters).

    Raises:
        UserError: it cannot be written, as on a full disk.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    remedy = "Mend this, then resume the run with trainer.resume=auto."
    try:
        with translated(f"checkpoint: '{folder}' cannot be written", remedy):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _write_tensors(partial, contents)
        finish(partial, folder, config, {**state, "optimizer": contents.scalars})
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def finish(partial: Path, folder: Path, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    r"""Writes the text of a checkpoint whose tensors are written, and puts it in place."""
    remedy = "Mend this, then resume the run with trainer.resume=auto."
    with translated(f"checkpoint: '{folder}' cannot be written", remedy):
        _write_config(partial, config)
        write_state(partial, state)
        put_folder(partial, folder)


def contents_of(
    model: nn.Module, ema: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, loss: nn.Module | None = None
) -> Contents:
    r"""The tensors of a training as they are, without a copy."""
    weights = model.state_dict() | moments.of(model)
    weights |= {f"{_LOSS}{name}": value for name, value in (loss.state_dict() if loss else {}).items()}
    return Contents(weights, ema, *pack(optimizer))


def _write_tensors(folder: Path, contents: Contents) -> None:
    from safetensors.torch import save_file

    weights, averaged = _on_cpu(contents.weights), _on_cpu(contents.averages)
    save_file(weights, folder / "model.safetensors")
    save_file(weights | averaged, folder / "ema.safetensors")
    save_file(_on_cpu(contents.optimizer), folder / "optimizer.safetensors")
    if contents.powers is not None:
        averages.write(folder / averages.POWERS, contents.powers)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    write_yaml(folder / "config.yaml", config)


def build_model(config: Config, trust: Collection[str] | None = None) -> nn.Module:
    r"""The model of a run's configuration, with its process where it has one; `trust` as in `scoregen.config.build`."""
    node = config["model"]
    if accepts_sde(node):
        if "sde" not in config:
            raise UserError("sde: the configuration has a denoiser and no process. Use another checkpoint.")
        sde = build(config["sde"], trust=trust, where="sde")
        model: nn.Module = build(node, trust=trust, where="model", sde=sde)
        return model
    model = build(node, trust=trust, where="model")
    return model


def accepts_sde(node: dict[str, Any]) -> bool:
    r"""Whether the model of this node is a denoiser (as a classifier is not)."""
    return accepts(node, "sde")


def load(
    path: Path | str,
    weights: str = "ema",
    device: torch.device | str | None = None,
    trust: Collection[str] = (),
) -> nn.Module:
    r"""The trained model of a checkpoint, in evaluation mode.

    Args:
        path: a checkpoint folder, or a run folder (its last whole checkpoint).
        weights: "ema", "model" (the last step's) or "ema:LENGTH", an average of another length (`scoregen.averages`).
        device: where it goes; the CPU unless given.
        trust: your own modules, whose classes the checkpoint may name: ["mynet"]; and places outside the checkpoint,
            folders ("./pipeline") or hub ids, that its model may read or fetch: the pipeline of a `LatentDiffusion`.
            What a checkpoint itself says about trust is not read.

    Raises:
        UserError: nothing there, another kind of file, damaged, or a configuration that asks for anything but models
            and processes of this package and of modules that are trusted, for a larger model than its weights, or for
            places that are not trusted.
    """
    average_lengths.length_of(weights)
    folder = find(path)
    try:
        model = _read_model(folder, weights, trust)
    except UserError:
        if folder.exists():
            raise
        model = _read_model(find(path), weights, trust)  # a training that is going on has deleted it for a newer one
    return model.to(device).eval() if device is not None else model.eval()


def _read_model(folder: Path, weights: str, trust: Collection[str]) -> nn.Module:
    length = average_lengths.length_of(weights)
    file = folder / f"{weights if length is None else 'ema'}.safetensors"
    verify(folder, None if shard_files(folder) else ("config.yaml", file.name))
    config = read_config(folder)
    parts = checked_parts(config, trust)
    refuse_outside(parts, folder, trust)
    own = {name: shape for name, shape in _shapes(file).items() if not name.startswith(_NOT_OF_THE_MODEL)}
    model = build_bounded(parts, own, lambda: build_model(config, trust), modules(trust))
    load_weights(model, file)
    if length is not None:
        averages.load(model, folder, length)
    shape = stated_shape(config)
    if shape is not None and isinstance(model, Denoiser) and model.shape is None:
        model.network.shape = shape  # type: ignore[assignment]  # torch: a module's attributes are tensors or modules
    return model


def stated_shape(config: Config) -> tuple[int, ...] | None:
    r"""The shape of a sample as a run records it, (*S), for a network that is not told; None for others."""
    shape = config.get("shape")
    if shape is None:
        return None
    if not isinstance(shape, list) or not all(type(size) is int and 1 <= size <= 2**24 for size in shape):
        raise UserError(f"checkpoint: 'shape' of its configuration must be a list of sizes, got {shape!r:.60}.")
    return tuple(shape)


def load_weights(model: nn.Module, file: Path, loss: nn.Module | None = None, optional: Collection[str] = ()) -> None:
    r"""Reads a weights file into a model (and the state of a loss), names and shapes checked.

    Args:
        optional: names of tensors that the file may lack; the model keeps its own.
    """
    tensors = read_tensors(file)
    tensors |= {name: own for name, own in model.state_dict().items() if name in optional and name not in tensors}
    extras = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_NOT_OF_THE_MODEL)}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"checkpoint: the weights of '{file}' do not fit the model: {_reason(error, model, tensors)}."
        ) from error
    load_extras(model, extras, loss, file)


def _reason(error: RuntimeError, model: nn.Module, tensors: dict[str, Tensor]) -> str:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return misfit(model.state_dict(), shapes) or " ".join(str(error).split())


def load_extras(model: nn.Module, tensors: Mapping[str, Tensor], loss: nn.Module | None, file: Path) -> None:
    r"""Gives a model the moments of the data, and a loss its state, which stand beside the weights."""
    found = {name: tensor for name, tensor in tensors.items() if name.startswith(moments.PREFIX)}
    if found:
        moments.give(model, found, file)
    if loss is not None:
        loss.load_state_dict({name.removeprefix(_LOSS): v for name, v in tensors.items() if name.startswith(_LOSS)})


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    if not shard_files(file.parent):
        return header(file)
    kept = {"model.", f"{file.stem}."}
    found = [(name.split(".", 1), shape) for name, shape in shard_shapes(file.parent).items()]
    return {name: shape for (prefix, name), shape in found if f"{prefix}." in kept}


def read_tensors(file: Path) -> dict[str, Tensor]:
    r"""The tensors of a safetensors file, or of the shards beside which it would stand; damage is a clear error."""
    from safetensors.torch import load_file

    if shard_files(file.parent):
        return read_shards(file.parent, file.stem)
    with translated(f"checkpoint: '{file}' is missing or damaged", "Use an earlier checkpoint."):
        return load_file(file)


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path, state: dict[str, Any]) -> None:
    r"""Restores the optimizer of a checkpoint."""
    tensors = read_tensors(folder / "optimizer.safetensors")
    try:
        unpack(optimizer, tensors, state["optimizer"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"checkpoint: the optimizer state of '{folder}' does not fit ({type(error).__name__}: {error}). Use an "
            "earlier checkpoint, or start a new run with init=."
        ) from error


def checked_parts(config: Config, trust: Collection[str]) -> dict[str, Any]:
    r"""The nodes of model and process, whose targets are of this package or trusted."""
    parts: dict[str, Any] = {part: config[part] for part in ("model", "sde") if part in config}
    if not isinstance(parts.get("model"), dict) or "_target_" not in parts["model"]:
        raise UserError(
            f"checkpoint: 'model' of its configuration must be a mapping with _target_, got {parts.get('model')!r}."
        )
    if not isinstance(parts.get("sde", {}), dict):
        raise UserError(f"checkpoint: 'sde' of its configuration must be a mapping, got {parts['sde']!r}.")
    check_targets(parts, trust=trust)
    return parts
