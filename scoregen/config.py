r"""Configuration: from YAML nodes to objects, and the entry point of the commands.

A node is a mapping with a `_target_`; its other keys are constructor arguments. `build` checks names and types against the
signature before anything runs, so a slip is one message with the closest right name. Hydra composes the nodes.
"""

import functools
import importlib
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scoregen.errors import UserError, closest

# What the config of a checkpoint may build besides the classes of these packages: nothing with side effects.
TRUSTED_PACKAGES = ("scoregen.sde", "scoregen.models")
TRUSTED_TARGETS = ("torch.nn.SiLU", "torch.nn.ReLU", "torch.nn.GELU")


def build(node: Any, *, trusted: bool = True, where: str = "", **arguments: Any) -> Any:
    r"""Builds the object that a node describes; nested nodes first.

    Args:
        node: plain data; a mapping with `_target_` becomes a call, with `_partial_: true` a `functools.partial`.
        trusted: False for a config that came with a checkpoint: then only processes and models of this package are built.
        where: path of the node, for messages.
        arguments: arguments added to the call of the outermost node (not checked for being known).

    Raises:
        UserError: an unknown key or target, a wrong type, a value that the constructor refuses, an untrusted target.
    """
    if isinstance(node, Mapping):
        if "_target_" not in node:
            return {key: build(value, trusted=trusted, where=_join(where, key)) for key, value in node.items()}
        return _call(node, trusted, where, arguments)
    if isinstance(node, list | tuple):
        return [build(value, trusted=trusted, where=f"{where}[{i}]") for i, value in enumerate(node)]
    return node


def accepts(node: Mapping, name: str) -> bool:
    r"""Whether the target of a node has an argument of this name."""
    return name in inspect.signature(locate(node["_target_"])).parameters


def locate(target: str, where: str = "") -> Any:
    r"""The class or function with this dotted name."""
    module_name, _, name = str(target).rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UserError(f"{_join(where, '_target_')}: cannot import '{target}' ({error}).") from None
    if not hasattr(module, name):
        known = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
        raise UserError(f"{_join(where, '_target_')}: '{module_name}' has no '{name}'. {closest(name, known)}")
    return getattr(module, name)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)


def _check_trusted(target: str, where: str) -> None:
    if target in TRUSTED_TARGETS:
        return
    found = None
    if any(target.startswith(f"{package}.") for package in TRUSTED_PACKAGES):
        found = locate(target, where)
    if not (inspect.isclass(found) and found.__module__.startswith(TRUSTED_PACKAGES)):
        raise UserError(
            f"{_join(where, '_target_')}: '{target}' is refused. A configuration that came with a checkpoint may build only "
            f"classes of {' and '.join(TRUSTED_PACKAGES)} and {', '.join(TRUSTED_TARGETS)}."
        )


def check_targets(node: Any, where: str = "") -> None:
    r"""Refuses every target under a node that a checkpoint may not name, before any of them is imported or called."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_trusted(str(node["_target_"]), where)
        for key, value in node.items():
            check_targets(value, _join(where, key))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            check_targets(value, f"{where}[{i}]")


def _call(node: Mapping, trusted: bool, where: str, arguments: dict[str, Any]) -> Any:
    target = node["_target_"]
    if not trusted:
        _check_trusted(target, where)
    function = locate(target, where)
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(function)
    values = {}
    for key, value in node.items():
        if key in ("_target_", "_partial_"):
            continue
        if key not in parameters and not open_ended:
            raise UserError(f"{_join(where, key)}: '{key}' is not an argument of {target}. {closest(key, parameters)}")
        value = build(value, trusted=trusted, where=_join(where, key))
        if value == "???":
            raise UserError(f"{_join(where, key)}: a value is required; give {_join(where, key)}=...")
        values[key] = _typed(value, hints.get(key), _join(where, key))
    values |= arguments
    if node.get("_partial_"):
        return functools.partial(function, **values)
    missing = [k for k, p in parameters.items() if p.default is p.empty and p.kind is p.KEYWORD_ONLY and k not in values]
    if missing:
        raise UserError(f"{where or target}: {', '.join(missing)} must be given for {target}.")
    try:
        return function(**values)
    except UserError as error:
        raise error if not where or str(error).startswith(where) else UserError(f"{where}: {error}") from error
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise UserError(f"{where or target}: {error}") from error


def _hints(function: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except Exception:  # a third-party signature whose annotations do not resolve is left to its own checks
        return {}


def _typed(value: Any, hint: Any, where: str) -> Any:
    r"""The value as its annotation wants it (lists become tuples, integers floats); simple types only."""
    if hint is None or value is None and type(None) in typing.get_args(hint):
        return value
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else (hint,)
    names = []
    for option in options:
        origin = typing.get_origin(option) or option
        if origin not in (int, float, bool, str, tuple, list):
            return value
        names.append("list" if origin in (tuple, list) else origin.__name__)
        if origin in (tuple, list) and isinstance(value, list | tuple):
            return origin(value)
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin in (int, bool, str) and type(value) is origin:
            return value
    raise UserError(f"{where}: must be {' or '.join(names)}, got {value!r} ({type(value).__name__}).")


def conf_dir() -> Path:
    r"""The folder of the YAML files: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "conf"
    return checkout if (package.parent / "pyproject.toml").exists() and checkout.is_dir() else package / "conf"


def entry(config_name: str, run: Callable[[dict, Path], None]) -> Callable[[], None]:
    r"""A command: Hydra composes conf/<config_name>.yaml with the overrides, `run(config, run folder)` does the work.

    A user's mistake ends with one message on standard error and exit status 1; set HYDRA_FULL_ERROR=1 for the traceback.
    Processes other than the first one get no run folder of their own.
    """

    def main() -> None:
        traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, and the message below is the only one
        try:
            _prepare_processes()
            import hydra

            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(_task(run))()
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            message = user_message(error)
            if message is None or traceback_wanted:
                raise
            print(f"{config_name}: {message}", file=sys.stderr)
            sys.exit(1)

    return main


def _prepare_processes() -> None:
    multirun = any(argument in ("-m", "--multirun") for argument in sys.argv[1:])
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and multirun:
        raise UserError("--multirun cannot run inside torchrun (only its first job would start); start the jobs one by one.")
    if int(os.environ.get("RANK", 0)) > 0:
        sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]


def _task(run: Callable[[dict, Path], None]) -> Callable:
    def task(config: Any) -> None:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        run(OmegaConf.to_container(config, resolve=True), Path(HydraConfig.get().runtime.output_dir))

    return task


def user_message(error: BaseException) -> str | None:
    r"""The one message for a user's mistake, None for anything else."""
    if isinstance(error, UserError):
        return str(error)
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    text = str(error).strip()
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and getattr(cause, "key", None) is not None:
        known = _known_keys(cause)
        if known:
            key = str(cause.key)
            return f"{text.splitlines()[0]} '{key}' is not a key there. {closest(key, known)}"
    if "Could not find" in text or "Could not override" in text:
        return _with_option(text)
    return text


def _known_keys(cause: Any) -> list[str]:
    parent = getattr(cause, "parent_node", None)
    return [str(key) for key in parent] if isinstance(parent, Mapping) or hasattr(parent, "keys") else []


def _with_option(text: str) -> str:
    lines = text.splitlines()
    if "Could not find '" in text and "Available options in" in text:
        wanted = text.split("Could not find '")[1].split("'")[0].rpartition("/")[2]
        start = next(i for i, line in enumerate(lines) if "Available options in" in line)
        options = [line.strip() for line in lines[start + 1 :] if line.strip() and " " not in line.strip()]
        return f"{lines[0]} {closest(wanted, options)} Options: {', '.join(options)}."
    return text
