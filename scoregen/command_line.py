r"""The entry point of the commands: Hydra composes, mistakes become one message, processes share one run folder."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scoregen.config import conf_dir
from scoregen.errors import UserError, closest


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
            _refuse_deletions(HydraConfig.get().overrides.task)
            run(OmegaConf.to_container(config, resolve=True), folder)
        except Exception as error:  # kept for `main`, since Hydra would print the overrides before a message
            failures.append(error)
        finally:
            _remove_empty(folder)

    return task


def _refuse_deletions(overrides: list[str]) -> None:
    r"""A part of a configuration may lose keys (~loss.every), the configuration no part: the commands read them all."""
    for override in overrides:
        name = override.removeprefix("~").partition("=")[0]
        if override.startswith("~") and "." not in name:
            raise UserError(f"~{name}: a key of the command cannot be removed; give it another value.")


def refuse_unused(config: dict[str, Any], name: str, unused: dict[str, str]) -> None:
    r"""Refuses values that would be ignored.

    Args:
        config: of a command. name: of its file in conf/, which has the defaults.
        unused: keys that say nothing in this call, each with the reason.

    Raises:
        UserError: one of them is not at its default.
    """
    from omegaconf import OmegaConf

    defaults: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"))
    for key, reason in unused.items():
        if config[key] != defaults[key]:
            raise UserError(f"{key}: {reason}, got {key}={config[key]}; leave it out.")


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
