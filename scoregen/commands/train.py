r"""Training from a configuration."""

import math
from pathlib import Path
from typing import Any

from scoregen.command_line import entry
from scoregen.config import accepts, build, typed
from scoregen.errors import UserError, closest

_GROUPS = ("data", "sde", "model", "loss", "sampler", "trainer", "logger")
_HOOKS = ("early_stopping", "quality", "accuracy", "few_calls", "lora_export", "preview")
_VALUES = {"seed": int, "conditional": bool, "init": str | None, "data_moments": str | None, "dry_run": bool}
_WEIGHTS = 5  # stream of the first weights


def run(config: dict[str, Any], folder: Path) -> None:
    r"""Checks and builds everything, then trains.

    Args:
        config: resolved configuration. folder: run folder.
    """
    _check_keys(config)
    import torch

    from scoregen.checkpoint import build_model, find, load_weights, read_config
    from scoregen.commands.lora import adapt, give_prompts
    from scoregen.parallel import barrier, rank
    from scoregen.rng import derive_seed
    from scoregen.training import JSONLines, Trainer, inherit, prepare, resume_point, write_config

    folder = _shared_folder(folder)
    source = build(config["data"], where="data")
    config["model"] = fill_model(config["model"], source, config["conditional"])
    trainer: Trainer = build(config["trainer"], where="trainer", seed=config["seed"])
    loss = build(config["loss"], where="loss")
    torch.manual_seed(derive_seed(config["seed"], _WEIGHTS))
    model = build_model(config)
    if config["init"] is not None and resume_point(folder, trainer.resume) is None:
        first = find(config["init"], "init")
        _check_meaning(read_config(first)["model"], config["model"], first)
        load_weights(model, first / "ema.safetensors")
    adapt(config, model)
    give_prompts(model, source)
    _check_optimizer(trainer, model)
    _check_loss(loss, model, source, trainer.steps)
    hooks = _hooks(config, source, loss, model)
    loggers = [JSONLines(), build(config["logger"], where="logger")]
    if config["data_moments"] is not None:
        _set_moments(model, source, config["data_moments"])
    start = prepare(folder, config, trainer.resume)
    describe(model, source, trainer, folder, start)
    if config["dry_run"]:
        return
    barrier()  # every process has looked at the folder before the first one writes there
    if rank() == 0:
        write_config(folder, config, start)
        inherit(folder, start)
    barrier()  # hooks look at what was measured before
    trainer.fit(model, loss, source, folder, config, start, loggers if rank() == 0 else [], hooks)
    if rank() == 0:
        print(f"done: {folder}/report.html" if (folder / "report.html").exists() else f"done: {folder}")


def fill_model(model: dict[str, Any], source: Any, conditional: bool, where: str = "model") -> dict[str, Any]:
    r"""The model's node with what only the data know: shape and number of classes, where it leaves them open."""
    model = dict(model)
    if "network" in model:
        if not isinstance(model["network"], dict):
            raise UserError(f"{where}.network: must be a mapping with a _target_, got {model['network']!r}.")
        model["network"] = fill_model(model["network"], source, conditional, f"{where}.network")
        return model
    if accepts(model, "shape", where) and model.get("shape") is None:
        model["shape"] = list(source.shape)
    if accepts(model, "num_classes", where) and model.get("num_classes") is None and conditional:
        model["num_classes"] = source.num_classes
    asked = model.get("num_classes")
    if isinstance(asked, int) and asked < (source.num_classes or 0):
        raise UserError(
            f"model: num_classes must be at least {source.num_classes}, the classes of {source.name}, got {asked}."
        )
    return model


def describe(model: Any, source: Any, trainer: Any, folder: Path, start: Path | None) -> None:
    r"""Says on the first process what is about to happen."""
    from scoregen.parallel import rank

    if rank() != 0:
        return
    parameters = sum(p.numel() for p in model.parameters())
    print(f"data: {source.name}, {len(source.train)} samples of shape {source.shape}, classes: {source.num_classes}")
    print(f"model: {type(model).__name__}, {parameters / 1e6:.2f} M parameters, precision: {trainer.precision}")
    print(
        f"run: {folder}, {trainer.steps} steps of {trainer.batch_size}" + (f", resumed from {start}" if start else "")
    )


def _check_keys(config: dict[str, Any]) -> None:
    known = (*_GROUPS, *_HOOKS, *_VALUES, "chart", "lora")
    for key in config:
        if key not in known:
            raise UserError(f"{key}: not a key of the training configuration. {closest(key, known)}")
    for key, hint in _VALUES.items():
        config[key] = typed(config[key], hint, key)
    for key in _GROUPS:
        if not isinstance(config.get(key), dict) or "_target_" not in config[key]:
            raise UserError(f"{key}: must be one of the options of conf/{key} ({key}=NAME), got {config.get(key)!r}.")
    for key in _HOOKS:
        if config.get(key) is not None and not isinstance(config[key], dict):
            raise UserError(f"{key}: must be a mapping or null, got {config[key]!r}; {key}.every=null switches it off.")


def _check_meaning(old: dict[str, Any], new: dict[str, Any], where: Path) -> None:
    r"""Weights of `init` fit a network that is asked for something else, and would say something else there."""
    for key in ("prediction", "sigma_data"):
        if key in old and key in new and old[key] != new[key]:
            raise UserError(
                f"init: the weights of '{where}' are for model.{key}={old[key]}, this run has {new[key]}; give "
                f"model.{key}={old[key]}."
            )


def _check_optimizer(trainer: Any, model: Any) -> None:
    r"""Makes the optimizer once, so that a value out of range is an error before any work."""
    try:
        rates = [group["lr"] for group in trainer.make_optimizer(model).param_groups]
    except (ValueError, TypeError) as error:
        raise UserError(f"trainer.optimizer: a value is out of range or of another type: {error}.") from error
    for rate in rates:
        if not isinstance(rate, int | float) or not math.isfinite(rate):
            raise UserError(f"trainer.optimizer.lr: must be a finite number, got {rate!r}.")


def _check_loss(loss: Any, model: Any, source: Any, steps: int) -> None:
    r"""Computes the loss of two samples: whether loss, model, chart and data fit together is known before any work."""
    import torch

    x, label = source.train[:2]
    if label is None and loss.needs_labels:
        raise UserError(f"data: {type(loss).__name__} needs labels, {source.name} has none.")
    told, noise = getattr(model, "noise_sigma", None), getattr(loss, "noise_sigma", None)
    if told is not None and noise not in (None, told):
        raise UserError(
            f"loss.noise_sigma: must be model.noise_sigma={told:g}, the noise that a {type(model).__name__} is told, "
            f"got {noise:g}; set both."
        )
    if source.augmentation is not None:
        x = _augmented(source, x)
    try:
        loss.begin(model)
        loss.at(0, steps)
        with torch.no_grad():
            loss(model.eval(), x, label, torch.Generator().manual_seed(0))
        loss.metrics()
    except UserError:
        raise
    except (ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        names = f"{type(loss).__name__} of {type(model).__name__} on {source.name}"
        raise UserError(f"loss: {names} cannot be computed: {' '.join(str(error).split())}") from error


def _augmented(source: Any, x: Any) -> Any:
    import torch

    try:
        return source.augmentation(x, [torch.Generator().manual_seed(0) for _ in x])
    except (ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        name = type(source.augmentation).__name__
        raise UserError(f"data.augmentation: {name} of {source.name} fails: {' '.join(str(error).split())}") from error


def _shared_folder(folder: Path) -> Path:
    r"""The first process's run folder, on every process."""
    from scoregen.parallel import world_size

    if world_size() == 1:
        return folder
    import torch
    from accelerate import PartialState

    from scoregen.parallel import PATIENCE, gather

    PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    return Path(gather(str(folder.resolve()))[0])


def _hooks(config: dict[str, Any], source: Any, loss: Any, model: Any) -> list[Any]:
    r"""Monitors and previews that are switched on (those with `every`); previews come last, they draw the log."""
    sampler = build(config["sampler"], where="sampler")
    offered = {"source": source, "loss": loss, "sampler": sampler, "config": config, "model": model}
    hooks = []
    for name in _HOOKS:
        node = config.get(name)
        if node is None:
            continue
        if node.get("every") is None:  # switched off; its other keys are checked all the same
            build({k: v for k, v in node.items() if k != "every"} | {"_partial_": True}, where=name)
            continue
        if (name == "accuracy") == hasattr(model, "sde") and name != "early_stopping":
            raise UserError(f"{name}.every: must be null for a {type(model).__name__}, got {node['every']}.")
        hooks.append(build(node, where=name, **{k: v for k, v in offered.items() if accepts(node, k)}))
        _check_hook(name, hooks[-1], model)
    return hooks


def _check_hook(name: str, hook: Any, model: Any) -> None:
    r"""Whether the samplers of a monitor suit the process is known before any work."""
    from scoregen.commands.calls import network_calls

    samplers = hook.samplers(model.sde) if hasattr(hook, "samplers") else []
    if samplers and hasattr(model, "latents") and name != "preview":
        raise UserError(f"{name}.every: must be null for a {type(model).__name__}, whose samples are latents.")
    for sampler in samplers:
        network_calls(sampler, model.sde, name)


def _set_moments(model: Any, source: Any, kind: str) -> None:
    r"""Moments of the data in chart coordinates for the prior: one for all pixels, or one a pixel."""
    if kind not in ("scalar", "pixel"):
        raise UserError(
            f"data_moments: must be null, scalar or pixel, got '{kind}'. {closest(kind, ('scalar', 'pixel'))}"
        )
    if not hasattr(model, "sde"):
        raise UserError(f"data_moments: must be null for a {type(model).__name__}, which has no process, got '{kind}'.")
    y = model.sde.to_chart(source.train[:][0]).double()
    dims = None if kind == "scalar" else 0
    model.sde.with_moments(y.mean(dims), y.var(dims))


main = entry("train", run)
