r"""From what was raised to the one message that a user sees."""

import re
import traceback
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from scoregen import failures
from scoregen.checks import either
from scoregen.config import conf_dir
from scoregen.description import option
from scoregen.errors import Interrupted, UserError, closest, listed, printable
from scoregen.help import options_of


def user_message(error: BaseException) -> str | None:
    r"""The one message for a user's mistake or a failure of the machine, in one line; None for anything else."""
    found = _message(error)
    return None if found is None else printable(found)


def _message(error: BaseException) -> str | None:
    if isinstance(error, UserError | Interrupted):
        return str(error)
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, ValueError) and _raised_in(error).startswith("hydra."):
        return f"{error}."
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return failures.message(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    missing = re.match(r"In '(?:[\w/]+': Could not find|\w+': Could not load) '([^']+)'", lines[0])
    if missing:
        return _no_such_option(missing.group(1), lines)
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


def _no_such_option(path: str, lines: list[str]) -> str:
    r"""Of "sde/vpp" or "experiment/rrcm/prob", and the lines after "Available options in 'sde':", one option a line."""
    start = next((i for i, line in enumerate(lines) if "Available options in" in line), None)
    group = path.split("/")[0] if start is None else lines[start].split("'")[1]
    listed = [] if start is None else [line for line in lines[start + 1 :] if " " not in line and "=" not in line]
    options = sorted({*listed, *options_of(group)})
    wanted = path.removeprefix(f"{group}/")
    same_end = [option for option in options if option.endswith(f"/{wanted}")]
    nearest = f"Did you mean '{same_end[0]}'?" if same_end else closest(wanted, options)
    rest = "" if nearest.startswith("Choices") else f" Choices: {', '.join(options)}."
    return f"{group}: there is no option '{wanted}'. {_meant(group, wanted)}{nearest}{rest}"


_READERS = {".npz": "npz", ".npy": "npy", ".csv": "table", ".parquet": "table", ".tar": "shards"}


def _meant(group: str, wanted: str) -> str:
    r"""The remedy where a place or a class was given in place of an option."""
    if group == "data" and ("/" in wanted or Path(wanted).exists()):
        return f"Give the place as data.path: data={_READERS.get(Path(wanted).suffix, 'folder')} data.path={wanted}. "
    if re.fullmatch(r"[^\W\d]\w*(\.\w+)+", wanted):
        return f"A class of your own is {'model.network' if group == 'model' else group}._target_={wanted}. "
    return ""


def _no_such_key(first_line: str, cause: Any) -> str:
    r"""Of "Could not override 'trainer.stepss'." and the error of the node that lacks the key."""
    path = first_line.split("'")[1]
    parent: Any = getattr(cause, "parent_node", None)
    keys = list(parent.keys()) if hasattr(parent, "keys") else []
    known = [str(key) for key in keys if str(key) not in ("_target_", "hydra")]
    key = str(getattr(cause, "key", None) or path.split(".")[0])
    return f"{path}: there is no key '{key}'. {_nearest_key(path, key, known, parent)}".rstrip()


def _nearest_key(path: str, key: str, known: list[str], parent: Any) -> str:
    r"""The remedy: a key of this name elsewhere, options of the group that have it, or the nearest name."""
    group = path.split(".")[0]
    places = [] if parent is None else _places(key, parent._get_root())
    here = [place for place in places if place.startswith(f"{group}.")]
    options = [] if here else _options_with(path)
    if options:
        return f"Options that have it: {listed(options, 20)}. Choose one by {group}=OPTION."
    if not here and get_close_matches(key, known, n=1, cutoff=0.8):
        return closest(key, known)
    return f"Did you mean {either(map(repr, here or places))}?" if places else closest(key, known)


def _options_with(path: str) -> list[str]:
    r"""The options of a group that have a key, of which the chosen one has not."""
    group, *below = path.split(".")
    if not (below and group.isidentifier() and (conf_dir() / group).is_dir()):
        return []
    return [name for name in options_of(group) if "/" not in name and _has(option(group, name), below)]


def _has(node: Any, below: list[str]) -> bool:
    for key in below:
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True


def _places(key: str, node: Any, where: str = "") -> list[str]:
    r"""Where in a configuration a key of this name stands, outside of Hydra's own."""
    found = []
    for name, value in node.items_ex(resolve=False) if hasattr(node, "items_ex") else ():
        place = f"{where}.{name}" if where else str(name)
        found += [place] if name == key and where else []
        found += _places(key, value, place) if place != "hydra" else []
    return found


def unreadable(override: str) -> str:
    r"""The message for an override that Hydra's grammar cannot read, with the quotes that it needs."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: an override has the form key=value. See --help for the keys."
    value = re.sub(r"^(['\"])(.*)\1$", r"\2", value)
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + found[2].replace('"', r"\""), value)
    shell = f'{key}="{escaped}"'.replace("'", "'\\''")
    return f"{key}: the value {value} holds characters that are reserved in overrides. Quote it twice: '{shell}'."
