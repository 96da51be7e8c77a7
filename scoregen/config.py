r"""Configuration: from YAML nodes to objects, and the entry point of the commands.

A node is a mapping with a `_target_`; its other keys are constructor arguments. `build` checks names and types against
the signature before anything runs, so a slip is one message with the closest right name. Hydra composes the nodes.
"""

import functools
import importlib
import inspect
import os
import sys
import traceback
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
        trusted: False for a config that came with a checkpoint: then only processes and models of this package are
            built.
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
    except ModuleNotFoundError as error:
        raise UserError(f"{_join(where, '_target_')}: '{target}' cannot be found: {error}.") from None
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
    if target.startswith(tuple(f"{package}." for package in TRUSTED_PACKAGES)) and "._" not in target:
        found = locate(target, where)
    if not (inspect.isclass(found) and found.__module__.startswith(TRUSTED_PACKAGES)):
        raise UserError(
            f"{_join(where, '_target_')}: '{target}' is refused. A configuration that came with a checkpoint may "
            f"build only "
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
        values[key] = typed(value, hints.get(key), _join(where, key))
    values |= arguments
    if node.get("_partial_"):
        return functools.partial(function, **values)
    wanted = (
        k for k, p in parameters.items() if p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    )
    missing = [_join(where, k) for k in wanted if k not in values]
    if missing:
        raise UserError(f"{missing[0]}: a value is required by {target}; give {missing[0]}=...")
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


def typed(value: Any, hint: Any, where: str) -> Any:
    r"""The value as its annotation wants it (lists become tuples, integers floats).

    Numbers, flags, texts, lists of them and classes of this package are checked; other annotations accept everything.

    Raises:
        UserError: another type.
    """
    if hint is None or hint is Any:
        return value
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    names = []
    for option in options:
        origin = typing.get_origin(option) or option
        if origin in (tuple, list) and isinstance(value, list | tuple):
            return _elements(value, option, where)
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin in _PLAIN:
            if type(value) is origin:
                return value
        elif not (inspect.isclass(origin) and origin.__module__.startswith("scoregen.")) or isinstance(value, origin):
            return value
        names.append(_PLAIN.get(origin, origin.__name__))
    found = "null" if value is None else f"{value!r} ({_PLAIN.get(type(value), type(value).__name__)})"
    raise UserError(f"{where}: must be {' or '.join(names)}, got {found}.")


_PLAIN = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a list",
    list: "a list",
    type(None): "null",
}


def _elements(value: list | tuple, hint: Any, where: str) -> list | tuple:
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if not inner:
        return origin(value)
    if origin is tuple and inner[-1] is not Ellipsis and len(inner) != len(value):
        raise UserError(f"{where}: must be a list of {len(inner)}, got {list(value)} of {len(value)}.")
    hints = inner if origin is tuple and inner[-1] is not Ellipsis else inner[:1] * len(value)
    return origin(typed(v, h, f"{where}[{i}]") for i, (v, h) in enumerate(zip(value, hints, strict=True)))


def conf_dir() -> Path:
    r"""The folder of the YAML files: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "conf"
    return checkout if (package.parent / "pyproject.toml").exists() and checkout.is_dir() else package / "conf"


def entry(config_name: str, run: Callable[[dict, Path], None]) -> Callable[[], None]:
    r"""A command: Hydra composes conf/<config_name>.yaml with the overrides, `run(config, run folder)` does the work.

    A user's mistake ends with one message on standard error and exit status 1; set HYDRA_FULL_ERROR=1 for the
    traceback. Processes other than the first one get no run folder of their own.
    """

    def main() -> None:
        full = os.environ.get("HYDRA_FULL_ERROR")
        os.environ["HYDRA_FULL_ERROR"] = (
            "1"  # Hydra then raises instead of printing, and the message below is the only one
        )
        failures: list[Exception] = []
        try:
            _prepare_processes()
            import hydra

            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(_task(run, failures))()
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            failures.append(error)
        finally:
            os.environ.pop("HYDRA_FULL_ERROR")
            os.environ |= {} if full is None else {"HYDRA_FULL_ERROR": full}
        for error in failures:
            message = user_message(error)
            if message is None or full == "1":
                raise error
            print(f"{config_name}: {message}", file=sys.stderr)
        if failures:
            sys.exit(1)
        if "torch" in sys.modules:
            from scoregen.parallel import finalize

            finalize()

    return main


def _prepare_processes() -> None:
    multirun = any(argument in ("-m", "--multirun") for argument in sys.argv[1:])
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and multirun:
        raise UserError(
            "--multirun cannot run inside torchrun (only its first job would start); start the jobs one by one."
        )
    if int(os.environ.get("RANK", 0)) > 0:
        sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]


def _task(run: Callable[[dict, Path], None], failures: list[Exception]) -> Callable:
    def task(config: Any) -> None:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            run(OmegaConf.to_container(config, resolve=True), folder)
        except Exception as error:  # kept for `main`, since Hydra would print the overrides before a message
            failures.append(error)
        finally:
            _remove_empty(folder)

    return task


def _remove_empty(folder: Path) -> None:
    r"""Takes back the run folder that Hydra made, and its empty parents in the working folder, if it is empty."""
    here = Path.cwd()
    while folder != here and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
        if here not in folder.parents:
            return


def user_message(error: BaseException) -> str | None:
    r"""The one message for a user's mistake, None for anything else."""
    if isinstance(error, UserError):
        return str(error)
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, ValueError) and _raised_in(error).startswith("hydra."):
        return f"{error}."
    if not isinstance(error, HydraException | OmegaConfBaseException):
        # a full disk, a path that is no folder, missing rights
        return f"{error}." if isinstance(error, OSError) else None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if "Could not find '" in lines[0] and any("Available options in" in line for line in lines):
        return _no_such_option(lines)
    if lines[0].startswith("Could not override '"):
        return _no_such_key(lines[0], cause)
    if "no match in the defaults list" in " ".join(lines).lower():
        return f"{lines[0]} See --help for the groups."
    return " ".join(line for line in lines if "hydra.cc" not in line)


def _raised_in(error: BaseException) -> str:
    r"""The module that raised an error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__")) if frames else ""


def _no_such_option(lines: list[str]) -> str:
    r"""Of "Could not find 'sde/vpp'", "Available options in 'sde':", one option a line."""
    group, _, wanted = lines[0].split("Could not find '")[1].split("'")[0].rpartition("/")
    start = next(i for i, line in enumerate(lines) if "Available options in" in line)
    options = [line for line in lines[start + 1 :] if " " not in line and "=" not in line]
    nearest = closest(wanted, options)
    rest = "" if nearest.startswith("Choices") else f" Choices: {', '.join(options)}."
    return f"{group}: there is no option '{wanted}'. {nearest}{rest}"


def _no_such_key(first_line: str, cause: Any) -> str:
    r"""Of "Could not override 'trainer.stepss'." and the error of the node that lacks the key."""
    path = first_line.split("'")[1]
    parent = getattr(cause, "parent_node", None)
    known = [str(key) for key in parent] if hasattr(parent, "keys") else []
    key = str(getattr(cause, "key", None) or path.split(".")[0])
    return f"{path}: there is no key '{key}'. {closest(key, known)}".rstrip()
