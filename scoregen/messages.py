r"""From what was raised to the one message that a user sees."""

import re
import traceback
from typing import Any

from scoregen.errors import UserError, closest


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
    if lines[0].startswith("Error parsing override '"):
        return unreadable(lines[0].split("'", 1)[1].rstrip("'"))
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
    known = [str(key) for key in parent if str(key) not in ("_target_", "hydra")] if hasattr(parent, "keys") else []
    key = str(getattr(cause, "key", None) or path.split(".")[0])
    return f"{path}: there is no key '{key}'. {closest(key, known)}".rstrip()


def unreadable(override: str) -> str:
    r"""The message for an override that Hydra's grammar cannot read, with the quotes that it needs."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: an override has the form key=value. See --help for the keys."
    value = re.sub(r"^(['\"])(.*)\1$", r"\2", value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    shell = f'{key}="{escaped}"'.replace("'", "'\\''")
    return f"{key}: the value {value} holds characters that are reserved in overrides. Quote it twice: '{shell}'."
