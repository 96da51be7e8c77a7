r"""What `accelerate launch` and `accelerate config` set, and how it agrees with the configuration.

The launcher speaks through the environment. Each of its values has one key of the configuration. Where that key is
null the launcher's value is used; where both are given they must be the same. What this package does not do, such as
DeepSpeed, is refused by name before any work.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import yaml

from scoregen.errors import UserError

T = TypeVar("T")

_FORMS = (
    ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
    ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
    ("ACCELERATE_USE_PARALLELISM_CONFIG", "Accelerate's ParallelismConfig (tensor, context or sequence parallel)"),
    ("ACCELERATE_USE_SAGEMAKER", "SageMaker"),
)
_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_SUPPORTED = "Training runs on one device, with a copy of the model on each (DDP), or with FSDP version 2."


@dataclass(frozen=True)
class Launched(Generic[T]):
    r"""A value of the launcher.

    Args:
        value: what it sets.
        source: its flag or variable, for messages.
    """

    value: T
    source: str


@dataclass(frozen=True)
class Compilation:
    r"""How torch compiles the network.

    Args:
        backend: of torch.compile. mode: "default", "reduce-overhead" or "max-autotune".
        fullgraph: refuse breaks of the graph. dynamic: shapes; None: torch decides.
        regional: compile the repeated blocks alone, which starts faster.
    """

    backend: str = "inductor"
    mode: str = "default"
    fullgraph: bool = False
    dynamic: bool | None = None
    regional: bool = False


@dataclass(frozen=True)
class Sharding:
    r"""How FSDP2 cuts a model into units that are gathered at a time.

    Args:
        classes: names of the classes of modules that are units; empty: the blocks of the network.
        least: modules of at least this many parameters are units, instead; None: see `classes`.
        reshard: whether the parameters of a unit are freed between the forward and the backward pass.
    """

    classes: tuple[str, ...] = ()
    least: int | None = None
    reshard: bool = True


def agreed(key: str, own: T | None, launched: Launched[T] | None) -> T | None:
    r"""The value of a key: the configuration's, else the launcher's, else None.

    Args:
        key: of the trainer. own: its value in the configuration. launched: what the launcher sets.

    Raises:
        UserError: both are given, and differ.
    """
    if own is None or launched is None or own == launched.value:
        return launched.value if own is None and launched is not None else own
    raise UserError(
        f"trainer.{key}={own}, but the launcher says {launched.value} ({launched.source}). They must agree. Give "
        f"trainer.{key}=null to take the launcher's value, or launch with {own}."
    )


def refuse_unsupported() -> None:
    r"""Refuses what the launcher asks for and this package does not do.

    Raises:
        UserError: it names what was asked for.
    """
    for variable, name in _FORMS:
        if _is_true(variable):
            raise UserError(f"accelerate: {name} is not supported ({variable}=true). {_SUPPORTED} Launch without it.")
    if os.environ.get("PJRT_DEVICE", "").upper() == "TPU":
        raise UserError(f"accelerate: TPUs are not supported (PJRT_DEVICE=TPU). {_SUPPORTED}")
    if "WORLD_SIZE" not in os.environ:
        _refuse_lost_processes()
    launched_shard()
    launched_precision()
    launched_accumulate()


def _refuse_lost_processes() -> None:
    r"""Refuses launches of several processes in which each would believe to be alone."""
    remedy = "Use torchrun --standalone --nproc_per_node N train.py ..., also on CPUs."
    for variable in _MPI:
        if os.environ.get(variable, "1") not in ("", "1"):
            raise UserError(
                f"{variable}={os.environ[variable]}: processes of MPI do not find one another here. {remedy}"
            )
    number = launcher_flags().get("num_processes", "1")
    if number != "1":
        raise UserError(
            f"accelerate launch: --num_processes={number}, but it has started one process, as it does with --cpu and "
            f"where it finds one device. {remedy}"
        )


def on_cpu() -> bool:
    r"""Whether training runs on the CPU: without an accelerator, or because the launcher says so."""
    import torch

    return _is_true("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def launched_precision() -> Launched[str] | None:
    r"""The precision of the launcher, "no", "bf16" or "fp16"; None for its default that nobody has asked for.

    Raises:
        UserError: fp8.
    """
    value = os.environ.get("ACCELERATE_MIXED_PRECISION")
    if value is None:
        return None
    if value not in ("no", "bf16", "fp16"):
        raise UserError(
            f"accelerate: ACCELERATE_MIXED_PRECISION={value} is not supported. Launch with --mixed_precision no, bf16 "
            "or fp16."
        )
    return Launched(value, "--mixed_precision") if value != "no" or _stated("mixed_precision") else None


def launched_accumulate() -> Launched[int] | None:
    r"""Micro-batches a step; the launcher hands its flag on to DeepSpeed alone, so that its command line is read.

    Raises:
        UserError: no whole number >= 1.
    """
    variable = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
    flag = launcher_flags().get("gradient_accumulation_steps")
    text, source = (
        os.environ.get(variable, flag),
        variable if variable in os.environ else "--gradient_accumulation_steps",
    )
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"accelerate: {source} must be a whole number >= 1, got {text!r}.")
    return Launched(int(text), source)


def launched_compile() -> Launched[Compilation | None] | None:
    r"""How the launcher wants the network compiled (a value of None: not at all), or None where it says nothing."""
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "").lower()
    if not backend:
        return None
    if backend == "no":
        return Launched(None, "--dynamo_backend") if _stated("dynamo_backend", "dynamo_config") else None
    dynamic = os.environ.get("ACCELERATE_DYNAMO_USE_DYNAMIC")
    found = Compilation(
        backend,
        os.environ.get("ACCELERATE_DYNAMO_MODE", "default"),
        _is_true("ACCELERATE_DYNAMO_USE_FULLGRAPH"),
        True if dynamic is not None and _is_true("ACCELERATE_DYNAMO_USE_DYNAMIC") else None,
        _is_true("ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION"),
    )
    return Launched(found, "--dynamo_backend")


def launched_recompute() -> Launched[bool] | None:
    r"""Whether the launcher wants activations computed again in the backward pass."""
    if not _is_true("ACCELERATE_USE_FSDP") or not _is_true("FSDP_ACTIVATION_CHECKPOINTING"):
        return None
    return Launched(True, "--fsdp_activation_checkpointing")


def launched_shard() -> Launched[Sharding] | None:
    r"""How the launcher wants the model cut, where it asks for FSDP.

    Raises:
        UserError: version 1, or an option that is not supported.
    """
    if not _is_true("ACCELERATE_USE_FSDP"):
        return None
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise UserError(
            f"accelerate: FSDP version {version} is not supported (FSDP_VERSION). {_SUPPORTED} Launch with "
            "--fsdp_version 2."
        )
    for variable, name in (
        ("FSDP_OFFLOAD_PARAMS", "--fsdp_offload_params"),
        ("FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD", "--fsdp_activation_checkpointing_offload"),
    ):
        if _is_true(variable):
            raise UserError(f"accelerate: {name} is not supported ({variable}=true). Launch without it.")
    if os.environ.get("FSDP_IGNORED_MODULES"):
        raise UserError("accelerate: --fsdp_ignored_modules is not supported. Launch without it.")
    return Launched(_sharding(os.environ), "--use_fsdp")


def _sharding(environment: Mapping[str, str]) -> Sharding:
    policy = environment.get("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    names = environment.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
    reshard = environment.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() not in (
        "false",
        "no_shard",
        "shard_grad_op",
    )
    if policy == "SIZE_BASED_WRAP":
        return Sharding(least=int(environment.get("FSDP_MIN_NUM_PARAMS", "0")), reshard=reshard)
    if policy == "NO_WRAP":
        return Sharding(least=sys.maxsize, reshard=reshard)
    return Sharding(tuple(name.strip() for name in names.split(",") if name.strip()), reshard=reshard)


def launcher_flags() -> dict[str, str]:
    r"""The flags on the command line of the `accelerate launch` that has started this process, by name.

    It names in the environment neither the number of processes nor, without DeepSpeed, that of micro-batches.
    """
    words = _launcher()
    own = words[: next((i for i, word in enumerate(words) if Path(word).name == Path(sys.argv[0]).name), len(words))]
    flags: dict[str, str] = {}
    for word, following in zip(own, [*own, ""][1:], strict=True):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            flags[name.replace("-", "_")] = value if equals else following
    return flags


def _launcher() -> list[str]:
    r"""The command line of the `accelerate launch` that has started this process; empty without one."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return []
    import psutil

    try:
        words: list[str] = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return []
    return words if any("accelerate" in word for word in words[:4]) else []


def _stated(flag: str, key: str | None = None) -> bool:
    r"""Whether a value of the launcher is more than its default: on its command line, or in its configuration file."""
    if not _launcher():
        return True  # someone has set the variable
    flags = launcher_flags()
    return flag in flags or (key or flag) in _configuration(flags.get("config_file"))


def _configuration(path: str | None) -> Mapping[str, object]:
    r"""What `accelerate config` has written."""
    from accelerate.commands.config.config_args import default_config_file

    place = Path(path or default_config_file)
    found = yaml.safe_load(place.read_text()) if place.is_file() else None
    return found if isinstance(found, Mapping) else {}


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "y", "t", "on")
