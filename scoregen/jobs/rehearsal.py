r"""What of a training can go wrong is tried before any work: weights of init, optimizer, loss, monitors."""

import math
import traceback
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from scoregen.config import Config
from scoregen.data import Source
from scoregen.errors import UserError
from scoregen.jobs.calls import check_sampler, network_calls
from scoregen.targets import is_under, modules

_FAILURES = (ValueError, TypeError, AttributeError, RuntimeError, IndexError)


def check_meaning(old: dict[str, Any], new: dict[str, Any], where: Path) -> None:
    r"""Refuses weights of `init` whose network was trained to estimate something else."""
    for key in ("prediction", "sigma_data"):
        if key in old and key in new and old[key] != new[key]:
            raise UserError(
                f"init: the weights of '{where}' are for model.{key}={old[key]}, this run has {new[key]}. Give "
                f"model.{key}={old[key]}."
            )


def check_loads(config: Config, model: Any, trust: Collection[str]) -> None:
    r"""Builds a model with classes of the user's once more, as loading its checkpoint will."""
    import torch

    from scoregen.checkpoint import build_model, checked_parts
    from scoregen.sizes import build_bounded, misfit, nodes

    own, parts = modules(trust), checked_parts(config, trust)
    if not any(is_under(node["_target_"], own) for node in nodes(parts)):
        return
    _check_apart(model)
    _check_classes(parts["model"], model)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with torch.random.fork_rng(devices=[]):
            again = build_bounded(parts, shapes, lambda: build_model(config, trust), own)
    except UserError as error:
        text = str(error).removeprefix("checkpoint: ")
        raise UserError(f"model: a checkpoint of it could not be loaded: {text}") from error
    if (found := misfit(again.state_dict(), shapes)) is not None:
        raise UserError(
            f"model: built twice from the same arguments it has other tensors: {found}. Let its arguments alone decide "
            "what it has."
        )


def _check_apart(model: Any) -> None:
    r"""Refuses tensors of a model that share memory, which a checkpoint cannot hold."""
    places: dict[int, str] = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel() and (first := places.setdefault(tensor.untyped_storage().data_ptr(), name)) != name:
            raise UserError(
                f"model: its tensors '{first}' and '{name}' share memory, and a checkpoint holds each by itself. Keep "
                "one of them in the state_dict, and use it in both places."
            )


def _check_classes(node: Mapping[str, Any], model: Any) -> None:
    r"""Refuses a network that is given a number of classes and does not keep it: nothing would hand it labels."""
    network = getattr(model, "network", None)
    given = (node.get("network") or {}).get("num_classes")
    if given is not None and network is not None and not hasattr(network, "num_classes"):
        raise UserError(
            f"model.network: {type(network).__name__} is given num_classes={given} but has no attribute num_classes, "
            "so that it would be trained without labels. Add self.num_classes = num_classes to its constructor."
        )


def check_optimizer(trainer: Any, model: Any, loss: Any = None) -> None:
    r"""Makes the optimizer once, so that a value out of range is an error before any work."""
    if next(model.parameters(), None) is None:
        name = type(getattr(model, "network", model)).__name__
        raise UserError(f"model: {name} has no parameters to train. A network is a torch.nn.Module that has some.")
    try:
        rates = [group["lr"] for group in trainer.make_optimizer(model, loss).param_groups]
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(f"trainer.optimizer: a value is out of range or of another type: {error}.") from error
    for rate in rates:
        if not isinstance(rate, int | float) or not math.isfinite(rate):
            raise UserError(f"trainer.optimizer.lr: must be a finite number, got {rate!r}.")


def check_loss(loss: Any, model: Any, source: Source, steps: int) -> None:
    r"""Computes the loss of two samples: loss, model, chart and data fit together."""
    import torch

    x, label = source.train.in_units([0, min(1, len(source.train) - 1)])
    if label is None and loss.needs_labels:
        raise UserError(f"data: {type(loss).__name__} needs labels, {source.name} has none.")
    _check_labels(loss, model, source)
    _check_told(loss, model)
    if label is not None and getattr(loss, "label_dropout", False):
        label = torch.where(torch.arange(len(label)) == 0, label, -1)  # as some will be in the training
    try:
        loss.begin(model)
        loss.at(0, steps)
        with torch.no_grad():
            loss(model.eval(), _augmented(source, x), label, torch.Generator().manual_seed(0))
        loss.metrics()
    except UserError:
        raise
    except _FAILURES as error:
        names = f"{type(loss).__name__} of {type(model).__name__} on {source.name}"
        text = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"loss: {names} cannot be computed: {text}{_line_of(error)}.{_advice(text)}") from error


def _check_labels(loss: Any, model: Any, source: Source) -> None:
    r"""Refuses a loss or a model with classes where training samples have none."""
    label = source.train.label
    if label is None and source.num_classes and getattr(model, "num_classes", None):
        raise UserError(
            f"data: {source.name} has {source.num_classes} classes, but its training part has no labels. Give them, or "
            "conditional=false."
        )
    without = 0 if label is None else int((label < 0).sum())
    if without and loss.needs_labels:
        raise UserError(
            f"data: {type(loss).__name__} needs labels, and {without:,} of {len(source.train):,} training samples of "
            f"{source.name} have none (-1). Leave them out."
        )


def _line_of(error: Exception) -> str:
    r"""The line of the user's own code in which something failed, if it was there."""
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    ours = max((k for k, (file, _) in enumerate(frames) if _PACKAGE in file.parents), default=-1)
    own = [(file, line) for file, line in frames[ours + 1 :] if "site-packages" not in file.parts and file.is_file()]
    return f" ({own[-1][0].name}, line {own[-1][1]})" if own else ""


_PACKAGE = Path(__file__).resolve().parents[1]


def _advice(text: str) -> str:
    r"""What to do about the usual mistakes in a network of the user's own."""
    if "positional argument" in text:
        return " A network is called as network(z, c_noise, label)."
    if "same dtype" in text:
        return " c_noise has at least float32: use c_noise.to(z)."
    if "NoneType" in text:
        return " Without labels label is None, and -1 stands for no label."
    if "index out of range" in text:
        return " A label may be -1, which stands for no label: give it a row of its own."
    if text.endswith("has no attribute 'sde'"):
        return " A network of your own is model.network._target_=MODULE.CLASS; a denoiser is put around it."
    return ""


def _check_told(loss: Any, model: Any) -> None:
    told, noise = getattr(model, "noise_sigma", None), getattr(loss, "noise_sigma", None)
    if told is not None and noise not in (None, told):
        raise UserError(
            f"loss.noise_sigma: must be model.noise_sigma={told:g}, the noise that a {type(model).__name__} is told, "
            f"got {noise:g}. Set both."
        )


def _augmented(source: Source, x: Any) -> Any:
    import torch

    if source.augmentation is None:
        return x
    try:
        return source.augmentation(x, [torch.Generator().manual_seed(0) for _ in x])
    except _FAILURES as error:
        name = type(source.augmentation).__name__
        raise UserError(f"data.augmentation: {name} of {source.name} fails: {' '.join(str(error).split())}") from error


def check_monitor(name: str, hook: Any, model: Any) -> None:
    r"""Tries the samplers of a monitor out on the process."""
    samplers = hook.samplers(model.sde) if hasattr(hook, "samplers") else []
    if samplers and hasattr(model, "latents") and name != "preview":
        raise UserError(f"{name}.every: must be null for a {type(model).__name__}, whose samples are latents.")
    for sampler in samplers:
        check_sampler(sampler, model, name)
        network_calls(sampler, model.sde, name)
