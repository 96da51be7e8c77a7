r"""Checkpoints: a folder of safetensors and text, written beside its place and renamed.

    config.yaml            the resolved configuration of the run
    model.safetensors      weights of the last step
    ema.safetensors        their exponential moving average (what samples well)
    optimizer.safetensors  state for resuming, with its scalars in state.json
    state.json             format, step, counters

Nothing in it is code: loading builds only allow-listed classes (`scoregen.config`) and reads tensors.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoregen.config import accepts, build, check_targets
from scoregen.errors import UserError, absent

FORMAT = "scoregen-checkpoint-1"
_SDE = "sde."  # moments of the data, which the prior needs, travel with the weights


def save(
    folder: Path | str,
    model: nn.Module,
    ema: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
    state: dict[str, Any],
    loss: nn.Module | None = None,
) -> Path:
    r"""Writes a checkpoint; an interrupted write leaves nothing at `folder`.

    Args:
        folder: where it goes, .../step_00001000.
        model: its `state_dict` is written. ema: averaged parameters by name.
        optimizer: its state. config: plain data. state: plain data (step, counters). loss: a loss with buffers of its
            own.
    """
    import yaml
    from safetensors.torch import save_file

    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {k: v.detach().contiguous().cpu() for k, v in model.state_dict().items()}
    extra = _moments(model) | {f"loss.{k}": v.detach().cpu() for k, v in (loss.state_dict() if loss else {}).items()}
    averaged = {k: v.detach().contiguous().cpu() for k, v in ema.items()}
    save_file(weights | extra, partial / "model.safetensors")
    save_file(weights | averaged | extra, partial / "ema.safetensors")
    tensors, scalars = _pack_optimizer(optimizer)
    save_file(tensors, partial / "optimizer.safetensors")
    (partial / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (partial / "state.json").write_text(json.dumps({"format": FORMAT, **state, "optimizer": scalars}, indent=1))
    _put(partial, folder)
    return folder


def _put(partial: Path, folder: Path) -> None:
    r"""Renames a finished folder into place; one that stands there is out of the way only for the time of a rename."""
    for path in (*partial.iterdir(), partial):
        _sync(path)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    r"""Waits until a file or folder is on the disk, before older checkpoints go; the power may fail."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point_last(folder: Path) -> None:
    r"""Makes `last` beside the checkpoint a link to it, atomically."""
    last = folder.parent / "last"
    if last.is_dir() and not last.is_symlink():  # in a copy of a run that followed links
        own = last.with_name(f"step_{read_state(last)['step']:08d}")
        shutil.rmtree(last) if own.exists() else os.replace(last, own)
    link = folder.parent / ".last.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, last)


def find(path: Path | str, name: str = "checkpoint") -> Path:
    r"""The checkpoint folder that a path means: itself, or the last one of a run folder.

    Args:
        path: a checkpoint folder or a run folder. name: what the path is called in messages.

    Raises:
        UserError: it does not exist or is no checkpoint.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{name}: {absent(path)}")
    for candidate in (path, path / "last", path / "checkpoints" / "last"):
        if (candidate / "state.json").is_file():
            return candidate
    raise UserError(
        f"{name}: '{path}' is not a checkpoint of scoregen (no state.json in it or in its checkpoints/last); "
        f"give {name}=outputs/.../checkpoints/last, or the run folder."
    )


def read_state(folder: Path) -> dict[str, Any]:
    r"""state.json of a checkpoint, its format checked."""
    try:
        state = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"checkpoint: '{folder}/state.json' is damaged ({error}); use an earlier checkpoint."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else state
        raise UserError(f"checkpoint: '{folder}' has format {found!r}, this version reads '{FORMAT}'.")
    missing = [key for key in ("step", "skipped", "skipped_in_a_row", "optimizer") if key not in state]
    if missing:
        raise UserError(f"checkpoint: '{folder}/state.json' lacks '{missing[0]}'; use an earlier checkpoint.")
    return state


def read_config(folder: Path) -> dict[str, Any]:
    r"""config.yaml of a checkpoint, as plain data."""
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"checkpoint: '{folder}/config.yaml' is missing or damaged ({reason}); use an earlier one."
        ) from error
    if not isinstance(config, dict) or "model" not in config:
        raise UserError(f"checkpoint: '{folder}/config.yaml' must be a mapping with 'model'; use an earlier one.")
    return config


def build_model(config: dict[str, Any], trusted: bool = True) -> nn.Module:
    r"""The model of a run's configuration, with its process where it has one."""
    node = config["model"]
    if accepts_sde(node):
        if "sde" not in config:
            raise UserError("sde: the configuration has a denoiser and no process; use another checkpoint.")
        sde = build(config["sde"], trusted=trusted, where="sde")
        return build(node, trusted=trusted, where="model", sde=sde)
    return build(node, trusted=trusted, where="model")


def accepts_sde(node: dict[str, Any]) -> bool:
    r"""Whether the model of this node is a denoiser (as a classifier is not)."""
    return accepts(node, "sde")


def load(path: Path | str, weights: str = "ema", device: torch.device | str | None = None) -> nn.Module:
    r"""The trained model of a checkpoint, in evaluation mode.

    Args:
        path: a checkpoint folder, or a run folder (its last checkpoint).
        weights: "ema" or "model" (the last step's).
        device: where it goes; the CPU unless given.

    Raises:
        UserError: nothing there, another kind of file, damaged, or a configuration that asks for anything but models
            and processes of this package.
    """
    if weights not in ("ema", "model"):
        raise ValueError(f"weights must be 'ema' or 'model', got '{weights}'.")
    folder = find(path)
    read_state(folder)
    config = read_config(folder)
    _refuse_targets(config)
    model = build_model(config, trusted=False)
    load_weights(model, folder / f"{weights}.safetensors")
    return model.to(device).eval() if device is not None else model.eval()


def load_weights(model: nn.Module, file: Path, loss: nn.Module | None = None) -> None:
    r"""Reads a weights file into a model (and the state of a loss), names and shapes checked."""
    tensors = read_tensors(file)
    moments = {k: tensors.pop(k) for k in list(tensors) if k.startswith(_SDE)}
    states = {k.removeprefix("loss."): tensors.pop(k) for k in list(tensors) if k.startswith("loss.")}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"checkpoint: the weights of '{file}' do not fit the model: {_misfit(model, tensors)}."
        ) from error
    if moments and hasattr(model, "sde"):
        model.sde.with_moments(moments[f"{_SDE}data_mean"], moments[f"{_SDE}data_var"])
    if loss is not None:
        loss.load_state_dict(states)


def _misfit(model: nn.Module, tensors: dict[str, Tensor]) -> str:
    r"""The first difference between what a model has and what a file holds."""
    own = model.state_dict()
    for names, text in (
        (own.keys() - tensors.keys(), "the file lacks"),
        (tensors.keys() - own.keys(), "the model lacks"),
    ):
        if names:
            return f"{text} '{min(names)}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    name = next(name for name in own if own[name].shape != tensors[name].shape)
    return f"'{name}' is {tuple(tensors[name].shape)} in the file and {tuple(own[name].shape)} in the model"


def read_tensors(file: Path) -> dict[str, Tensor]:
    r"""The tensors of a safetensors file; damage is a clear error."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint: '{file}' is missing or damaged ({error}); use an earlier checkpoint.") from error


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path, state: dict[str, Any]) -> None:
    r"""Restores the optimizer of a checkpoint."""
    tensors = read_tensors(folder / "optimizer.safetensors")
    try:
        _fill_optimizer(optimizer, tensors, state)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"checkpoint: the optimizer state of '{folder}' does not fit ({type(error).__name__}: {error}); use an "
            "earlier checkpoint, or start a new run with init=."
        ) from error


def _fill_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    entries: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    for key, value in state["optimizer"]["state"].items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    groups = [
        {**current, **saved}
        for current, saved in zip(optimizer.state_dict()["param_groups"], state["optimizer"]["groups"], strict=True)
    ]
    if tensors.keys() != set(state["optimizer"].get("tensors", tensors)):
        raise ValueError("tensors are missing")
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = optimizer.state_dict()
    tensors, scalars = {}, {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.detach().contiguous().cpu()
            else:
                scalars[f"{index}.{name}"] = value
    groups = [
        {k: v for k, v in g.items() if isinstance(v, int | float | bool | str | list | tuple | None)}
        for g in state["param_groups"]
    ]
    return tensors, {"state": scalars, "groups": groups, "tensors": sorted(tensors)}


def _moments(model: nn.Module) -> dict[str, Tensor]:
    sde = getattr(model, "sde", None)
    if sde is None or not bool((sde.data_var > 0).any() or (sde.data_mean != 0).any()):
        return {}
    return {f"{_SDE}data_mean": sde.data_mean.contiguous(), f"{_SDE}data_var": sde.data_var.contiguous()}


def _refuse_targets(config: dict[str, Any]) -> None:
    parts = {part: config[part] for part in ("model", "sde") if part in config}
    if not isinstance(parts.get("model"), dict) or "_target_" not in parts["model"]:
        raise UserError(
            f"checkpoint: 'model' of its configuration must be a mapping with _target_, got {parts.get('model')!r}."
        )
    if not isinstance(parts.get("sde", {}), dict):
        raise UserError(f"checkpoint: 'sde' of its configuration must be a mapping, got {parts['sde']!r}.")
    check_targets(parts)
