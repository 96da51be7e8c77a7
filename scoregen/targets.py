r"""Which class a `_target_` names, and which of them a checkpoint may name.

What a user types may name any class. What came with a checkpoint may name the classes of `TRUSTED_PACKAGES`, a few of
torch, and those of the modules that the user trusts (`trust=[mynet]`). A checkpoint cannot widen this: what it records
about trust is not read.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from scoregen.errors import UserError, closest

# What the config of a checkpoint may build besides the classes of these packages: nothing with side effects.
TRUSTED_PACKAGES = ("scoregen.sde", "scoregen.models")
TRUSTED_TARGETS = ("torch.nn.SiLU", "torch.nn.ReLU", "torch.nn.GELU")


def join(where: str, key: str) -> str:
    r"""The path of a key below the path of its node."""
    return f"{where}.{key}" if where else str(key)


def locate(target: str, where: str = "") -> Any:
    r"""The class or function with this dotted name."""
    module_name, _, name = str(target).rpartition(".")
    if not module_name or not is_module(str(target)):
        raise UserError(
            f"{join(where, '_target_')}: must be MODULE.CLASS, such as mynet.Net of the file mynet.py, got '{target}'."
        )
    try:
        module = imported(module_name, target, join(where, "_target_"))
    except ModuleNotFoundError as error:
        raise UserError(f"{join(where, '_target_')}: '{target}' cannot be found: {_absent(error, target)}") from None
    if not hasattr(module, name):
        known = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
        raise UserError(f"{join(where, '_target_')}: '{module_name}' has no '{name}'. {closest(name, known)}")
    return getattr(module, name)


def imported(module: str, name: str, where: str) -> ModuleType:
    r"""A module that a key names; what fails in its code is one message, with the line of the file.

    Args:
        module: its dotted name. name: what is wanted of it, for messages. where: the key.

    Raises:
        ModuleNotFoundError: there is no such module, or none that it imports.
        UserError: its code is wrong, or ends the program.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{where}: cannot import '{name}' ({_reason(error)}).{_remedy(error)}") from error


def _reason(error: BaseException) -> str:
    r"""What is wrong with the code of a module, and in which line of which file."""
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '?').name}, line {error.lineno}: {error.msg}"
    if isinstance(error, ImportError):
        return str(error)
    lines = traceback.extract_tb(error.__traceback__)
    own = [line for line in lines if "importlib" not in line.filename and not line.filename.startswith("<")]
    here = [line for line in own if Path(line.filename) != Path(__file__) and "site-packages" not in line.filename]
    place = f"{Path(here[-1].filename).name}, line {here[-1].lineno}: " if here else ""
    return f"{place}{type(error).__name__}" + (f": {text}" if (text := " ".join(str(error).split())) else "")


def _remedy(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return " It ends the program when it is imported: put what is to run under if __name__ == '__main__'."
    return " Import your own files by their names: from mynet import Net." * ("relative import" in str(error))


def _absent(error: ModuleNotFoundError, target: str) -> str:
    r"""Which module is missing, the target's own or one that it imports, and what to do."""
    missing = str(error.name)
    if not f"{target}.".startswith(f"{missing}."):
        return f"{error}, which it imports. Install it."
    here = Path.cwd()
    names = (
        [path.stem for path in here.iterdir() if path.suffix == ".py" or path.is_dir()] if "." not in missing else []
    )
    near = get_close_matches(missing, names, n=1, cutoff=0.6)
    remedy = f"Did you mean '{near[0]}'?" if near else "Run the command in the folder of your file."
    return f"{error}. Modules are looked for in '{here}' and among the installed packages. {remedy}"


def is_module(name: str) -> bool:
    r"""Whether what is trusted is a module, mynet or mynet.sub; a place has a separator, as in ./folder."""
    return all(part.isidentifier() for part in name.split("."))


def modules(trust: Collection[str]) -> tuple[str, ...]:
    r"""The modules among what is trusted; the others are places.

    Raises:
        UserError: a module of Python itself, whose classes run other programs.
    """
    if isinstance(trust, str):
        raise UserError(f"trust: must be a list of modules or places, got '{trust}'. Give trust=[{trust}].")
    found = tuple(name for name in trust if is_module(name))
    for name in found:
        if name.split(".")[0] in sys.stdlib_module_names and name != "__main__":
            raise UserError(f"trust: '{name}' is a module of Python itself. Name the module of your own classes.")
    return found


def is_under(name: str, roots: Collection[str]) -> bool:
    r"""Whether a dotted name lies in one of the modules: mynet.sub.Net in mynet, mynetwork.Net not."""
    return any(name.startswith(f"{root}.") for root in roots)


def check_targets(node: Any, where: str = "", trust: Collection[str] = (), *, typed: bool = False) -> None:
    r"""Refuses every target under a node that a checkpoint may not name, before any of them is called.

    Args:
        node: plain data. where: its path, for messages.
        trust: modules whose classes may be named too.
        typed: the node is the user's own, and a checkpoint is to hold it: the message says what to trust.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            check_target(node, where, trust, typed=typed)
        for key, value in node.items():
            check_targets(value, join(where, key), trust, typed=typed)
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            check_targets(value, f"{where}[{i}]", trust, typed=typed)


def check_target(node: Mapping[str, Any], where: str, trust: Collection[str], *, typed: bool = False) -> None:
    r"""`check_targets` of one node, without those below it."""
    _check_name(str(node["_target_"]), where, trust, typed)
    if node.get("_partial_"):
        raise UserError(f"{join(where, '_partial_')}: refused in a configuration that comes with a checkpoint.")


def _check_name(target: str, where: str, trust: Collection[str], typed: bool) -> None:
    if target in TRUSTED_TARGETS or _is_class_of(target, TRUSTED_PACKAGES, where, public=True):
        return
    roots = modules(trust)
    if is_under(target, roots):
        if not _is_class_of(target, roots, where):
            raise UserError(
                f"{join(where, '_target_')}: '{target}' is no class that a module of trust={list(trust)} defines. Name "
                "the class by the module in which it stands."
            )
    elif typed:
        if not callable(locate(target, where)):
            return  # which is refused for that when it is built
        root = target.split(".")[0]
        remedy = "Choose another class" if root in (*sys.stdlib_module_names, "scoregen") else f"Give trust=[{root}]"
        if root == "diffusers":
            kind = target.rpartition(".")[2]
            remedy = f"Give a node of scoregen.models.DiffusersNetwork with kind={kind} and its arguments in config"
        raise UserError(f"{where}: '{target}' is not of this package. {_RULE} {remedy}.")
    else:
        raise UserError(f"{join(where, '_target_')}: '{target}' is refused. {_RULE}{_advice(target)}")


_RULE = (
    f"A checkpoint builds only classes of {' and '.join(TRUSTED_PACKAGES)}, {', '.join(TRUSTED_TARGETS)}, and of "
    "modules that you trust."
)


def _advice(target: str) -> str:
    r"""How to trust a module that may be the user's own; nothing for what certainly is not."""
    root = target.split(".")[0]
    if root in (*sys.stdlib_module_names, "scoregen", "torch") or not root.isidentifier() or "." not in target:
        return ""
    return f" If '{root}' is your own module, give trust=[{root}] (in Python: trust=['{root}'])."


def _is_class_of(target: str, roots: Collection[str], where: str, public: bool = False) -> bool:
    r"""Whether a target is a class that is defined in one of the modules; nothing else is imported."""
    if not is_under(target, roots) or (public and "._" in target):
        return False
    found = locate(target, where)
    return inspect.isclass(found) and is_under(f"{found.__module__}.", roots)
