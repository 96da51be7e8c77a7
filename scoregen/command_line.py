r"""The command line: a job, composed by Hydra from conf/JOB.yaml and overrides; mistakes become one message."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from scoregen import own_names
from scoregen.allocator import keep_freed_memory
from scoregen.config import build, conf_dir, typed
from scoregen.errors import Interrupted, UserError, closest
from scoregen.help import JOBS, help_of, list_of_jobs, options_of
from scoregen.messages import unreadable, user_message
from scoregen.own_names import Named
from scoregen.targets import is_under

_VALUED = {"--": ("cfg", "package", "config-path", "config-name", "config-dir"), "-": ("c", "p", "cp", "cn", "cd")}
# the argument after one of them is no override
_FLAGS_WITH_VALUE = tuple(f"{dashes}{name}" for dashes, names in _VALUED.items() for name in names)
_FLAGS = (
    *("--help", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"),
    *("--shell-completion", "-sc", "--info", "-i", "--experimental-rerun", *_FLAGS_WITH_VALUE),
)
_BRACES = re.compile(r"\+{0,2}[\w.]+=\{.*_target_")
_NAMED = re.compile(r"\+{0,2}([\w.]+)\._target_=(?!(?:scoregen|torch|diffusers)\.)\w+\.[\w.]+")  # of the user's own
_OPEN = own_names.KEYS
_BUG = (
    "this is a mistake in scoregen or in code it was given, not in your values. Please report it with the lines above."
)
_VERIFY = "python -m scoregen.smoothing verify=FOLDER"
_MOVED = {
    "restore": "is a job of its own: scoregen restore images=... looks=...",
    "interpolate": "is a job of its own: scoregen interpolate between=[0,1]",
}


def main(argv: Sequence[str] | None = None) -> None:
    r"""`scoregen JOB key=value ...`; without arguments the list of jobs."""
    job, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if job in ("--help", "-h", "help"):
        print(list_of_jobs())
    elif job not in JOBS:
        remedy = f"Give {_VERIFY}." if job == "verify" else closest(job, JOBS)
        print(f"scoregen: there is no job '{job}'. {remedy}", file=sys.stderr)
        sys.exit(1)
    else:
        run_job(job, rest)


def run_job(job: str, argv: Sequence[str] | None = None) -> None:
    r"""Runs a job: `argv` are its overrides and Hydra's flags, those of the process unless given.

    A user's mistake ends with one message on standard error and exit status 1; set HYDRA_FULL_ERROR=1 for the
    traceback. Processes other than the first one get no run folder of their own.
    """
    overrides = list(sys.argv[1:] if argv is None else argv)
    if job == "gallery":
        overrides = [f"checkpoint={text[4:]}" if text.startswith("run=") else text for text in overrides]
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))  # where a user's own modules stand, also for the installed program
    if "--help" in overrides or "-h" in overrides:
        print(help_of(job))
        return
    keep_freed_memory()
    full = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, and the message below is the only one
    failures: list[Exception] = []
    try:
        _check_arguments(job, overrides)
        _compose_and_run(job, overrides, failures)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        failures.append(error)
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        os.environ |= {} if full is None else {"HYDRA_FULL_ERROR": full}
    _end(job, failures, full == "1")


def _end(job: str, failures: list[Exception], full: bool) -> None:
    r"""Prints the messages of failures and sets the exit status."""
    for error in failures:
        message = user_message(error)
        if message is None:
            error.add_note(f"{job}: {_BUG}")
        if message is None or full:
            raise error
        if not (isinstance(error, Interrupted) and int(os.environ.get("RANK", 0)) > 0):  # all processes end alike
            print(f"{job}: {message}", file=sys.stderr)
    if failures:
        sys.exit(max(getattr(error, "status", 1) for error in failures))
    if "torch" in sys.modules:
        from scoregen.parallel import finalize

        finalize()


def _check_arguments(job: str, overrides: list[str]) -> None:
    for argument in overrides:
        key = argument.split("=")[0]
        if argument.startswith("-") and key not in _FLAGS:
            near = get_close_matches(key, _FLAGS, n=1, cutoff=0.75)
            remedy = f"Did you mean '{near[0]}'?" if near else f"Keys have no dashes: {key.lstrip('-')}=VALUE."
            raise UserError(f"{argument}: there is no such flag. {remedy}")
        if job == "sample" and key.lstrip("+") in _MOVED:
            raise UserError(f"{key.lstrip('+')}: {_MOVED[key.lstrip('+')]}.")
        if key.lstrip("+") == "verify":
            raise UserError(f"verify: is a command of its own: {_VERIFY}.")
        if argument.startswith("~") and "." not in key:
            raise UserError(f"{key}: a key of the job cannot be removed. Give it another value.")
        if key == "hydra.sweeper.storage" and not argument.endswith("=null"):
            _check_storage()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and ("-m" in overrides or "--multirun" in overrides):
        raise UserError("--multirun cannot run inside torchrun: only its first job would start. Start them one by one.")


def _check_storage() -> None:
    r"""Refuses the data base of a study where the optuna of Hydra's sweeper would fail in it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        optuna, alchemy = version("optuna"), version("sqlalchemy")
    except PackageNotFoundError:
        return  # Hydra says what is missing
    if optuna.startswith("2.") and not alchemy.startswith("1."):
        raise UserError(
            f"hydra.sweeper.storage: optuna {optuna}, which Hydra's sweeper needs, cannot use SQLAlchemy {alchemy}. "
            "Install an older one, pip install 'sqlalchemy<2', or leave storage out: a study then ends with its sweep."
        )


def _check_grammar(overrides: list[str]) -> None:
    r"""Refuses what Hydra's grammar cannot read, and values of groups that are no options."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for before, text in pairwise(["", *overrides]):
        if text.startswith("-") or before in _FLAGS_WITH_VALUE:
            continue
        try:
            (override,) = parser.parse_overrides([text])
            value = None if override.is_sweep_override() else override.value()
        except HydraException:
            raise UserError(unreadable(text)) from None
        group = override.key_or_group
        names = value if isinstance(value, list) else [value]  # a list chooses several options of a group
        fine = isinstance(value, dict) or all(isinstance(name, str) for name in names)
        if not (fine or override.is_sweep_override() or override.is_delete()) and (conf_dir() / group).is_dir():
            choices = ", ".join(options_of(group))
            given = "null" if value is None else value
            raise UserError(f"{group}: must be an option of conf/{group}, got {given}. Choices: {choices}.")


def _compose_and_run(job: str, overrides: list[str], failures: list[Exception]) -> None:
    import hydra

    named, own, overrides = own_names.apart(overrides)
    _check_grammar(overrides)
    whole, rest = _whole_nodes(overrides)
    if int(os.environ.get("RANK", 0)) > 0:
        rest += ["hydra.run.dir=.", "hydra.output_subdir=null"]
    before, sys.argv = sys.argv, [f"{job}.py", *rest]  # Hydra reads its arguments from there
    try:
        decorated = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=job)
        decorated(_task(whole, (named, own), failures))()
    finally:
        sys.argv = before


def _whole_nodes(overrides: list[str]) -> tuple[list[str], list[str]]:
    r"""Overrides that give a whole node, `key={_target_: ...}`, which Hydra would merge or refuse; and those for Hydra.

    Below a new node any key may be given; Hydra adds it to the configuration, where `_replace` finds it.
    """
    whole = [text.lstrip("+") for text in overrides if _BRACES.match(text)]
    roots = [text.split("=")[0] for text in whole] + [found[1] for text in overrides if (found := _NAMED.match(text))]
    rest = []
    for text in overrides:
        key = text.lstrip("+").split("=")[0]
        if _BRACES.match(text):
            continue
        rest.append(f"++{text.lstrip('+')}" if is_under(key, [*roots, *_OPEN]) else text)
    return whole, rest


def _task(whole: list[str], own: tuple[Named, list[str]], failures: list[Exception]) -> Callable[[Any], float | None]:
    owner = os.getpid()

    def task(config: Any) -> float | None:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            _replace(config, whole, HydraConfig.get().overrides.task)
            own_names.put(config, own[0])
            root: Any = OmegaConf.to_container(config, resolve=True)
            out = Path(typed(root.pop("out", None), str | None, "out") or folder)
            job = build(root)
            job.run(out, started=lambda out: _write_hydra(out, config, [*whole, *own[1]]))
            found = None if job.dry_run else job.result(out)
            return None if found is None else float(found)
        except Exception as error:  # kept for the end, since Hydra would print the overrides before a message
            if os.getpid() != owner:  # in a process of a launcher: Hydra takes it to the one that waits
                print(f"{folder}: {user_message(error) or f'{type(error).__name__}: {error}'}", file=sys.stderr)
                raise
            failures.append(error)
            return None
        finally:
            with suppress(OSError):  # a folder that cannot be removed, as on a read-only disk, may stay
                _remove_empty(folder)

    return task


def _replace(config: Any, whole: list[str], given: Sequence[str]) -> None:
    r"""Puts whole nodes in place of those of the configuration: nothing of these remains.

    Args:
        whole: overrides `key={_target_: ...}`. given: the others, as Hydra has resolved them: with
            `key._target_=module.Class` of a module of the user's they give a whole node too, key by key.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf, open_dict

    parsed = OverridesParser.create().parse_overrides([*whole, *(text for text in given if not text.startswith("~"))])
    named = [found[1] for text in given if (found := _NAMED.match(text))]
    nodes: dict[str, Any] = {key: _started(OmegaConf.select(config, key)) for key in named}
    nodes |= {override.key_or_group: override.value() for override in parsed[: len(whole)]}
    with open_dict(config):
        for key in sorted(nodes, key=lambda key: key.count(".")):
            above = key.rpartition(".")[0]
            if above and OmegaConf.select(config, above, throw_on_missing=False) is None:
                raise UserError(f"{key}: there is no key '{above}'. {closest(key.split('.')[0], config)}")
            OmegaConf.update(config, key, nodes[key], merge=False, force_add=True)
        for override in parsed[len(whole) :]:
            if is_under(override.key_or_group, list(nodes)):
                OmegaConf.update(config, override.key_or_group, override.value(), merge=False, force_add=True)


def _started(node: Any) -> dict[str, Any]:
    r"""A node without the keys of the class that stands there; whether it is called later belongs to the place."""
    return {"_partial_": True} if "_partial_" in (node or {}) else {}


def _write_hydra(out: Path, config: Any, whole: list[str]) -> None:
    r"""Hydra's own record in the folder of a job: its configuration and overrides, as Hydra writes them."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from scoregen.storage import write_text

    settings = HydraConfig.get()
    task = OmegaConf.create([*settings.overrides.task, *whole])
    write_text(out / ".hydra" / "config.yaml", OmegaConf.to_yaml(config))
    write_text(out / ".hydra" / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": settings})))
    write_text(out / ".hydra" / "overrides.yaml", OmegaConf.to_yaml(task))


def _remove_empty(folder: Path) -> None:
    r"""Takes back the run folder that Hydra made, and its empty parents in the working folder, if it is empty."""
    here = Path.cwd()
    if folder != here and folder.is_dir() and [path.name for path in folder.iterdir()] == [".hydra"]:
        shutil.rmtree(folder / ".hydra")  # of a job that gave its folder back
    while folder != here and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
        if here not in folder.parents:
            return


def lists_of_paths(argv: Sequence[str], names: dict[str, str]) -> list[str]:
    r"""Overrides with other names of keys, `a,b` as a list: to Hydra it would be a sweep.

    Args:
        argv: overrides. names: key as it is given to key of the job.
    """
    return [_listed(argument, names) for argument in argv]


def _listed(argument: str, names: dict[str, str]) -> str:
    key, equals, value = argument.partition("=")
    if key not in names or not equals:
        return argument
    if value.startswith("["):
        return f"{names[key]}={value}"
    quoted = ",".join("'" + path.replace("'", "\\'") + "'" for path in value.split(","))
    return f"{names[key]}=[{quoted}]"
