r"""Evaluation: samples from a file or from a checkpoint, measured against data; or a sweep over samplers and costs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from scoregen.command_line import entry, refuse_unused
from scoregen.commands.output import claim, origin, write_atomically
from scoregen.commands.sample import check_sampling
from scoregen.config import accepts, build, typed
from scoregen.errors import UserError, closest

_SAMPLING = ("checkpoint", "weights", "n", "batch_size", "seed", "label", "guidance", "precision")
_VALUES: dict[str, Any] = {
    "samples": str | None,
    "cache": str | None,
    "out": str | None,
}
_KEYS = (
    *_SAMPLING,
    "samples",
    "sampler",
    "sweep",
    "calls",
    "data",
    "model",
    "chart",
    "features",
    "metrics",
    "cache",
    "out",
)

_BALANCED = (
    "labels were dealt out in turn: exactly balanced classes are not independent draws, which lowers the kernel and "
    "energy distance by about (spread between classes)/n, below zero where the laws agree."
)


def run(config: dict[str, Any], folder: Path) -> None:
    r"""Measures, prints tables and writes JSON (and the figure of a sweep).

    Args:
        config: resolved configuration. folder: Hydra's run folder, where results go unless `out` is given.
    """
    from scoregen import parallel

    _check(config)
    source = build(config["data"], where="data")
    extractor = build(with_channels(config["features"], source), where="features")
    settings = build(config["metrics"], where="metrics")
    _check_fit(config, source)
    parallel.initialize()
    out = Path(parallel.gather(str(Path(config["out"] or folder).resolve()))[0])
    record = _record(config)
    _claim(out, record, write=False)
    measure = partial(_measure, config, source, extractor, settings, out, record)
    if config["sweep"] is not None:
        _sweep(config, measure, extractor.frechet_name, out)
    else:
        measure(config["samples"] or _sample(config, config["sampler"], out / "samples"), out / "metrics.json")


def _record(config: dict[str, Any]) -> dict[str, Any]:
    r"""What the numbers are a function of; a sweep may go on with other samplers and costs, in folders of their own."""
    from scoregen.checkpoint import find

    free = ("root", "download", "batch_size")  # change no number
    record: dict[str, Any] = {
        name: {key: value for key, value in config[name].items() if key not in free}
        for name in ("data", "features", "metrics")
    }
    if config["checkpoint"] is None:
        return record
    record |= {key: config[key] for key in _SAMPLING if key not in ("checkpoint", "batch_size")}
    record["sampler"] = config["sampler"] if config["sweep"] is None else "sweep"
    return record | origin(find(config["checkpoint"]).resolve(), config["weights"])


def _claim(out: Path, record: dict[str, Any], write: bool) -> None:
    claim(out, record, "evaluation.json", ("metrics.json", "sweep.json"), write)


def _check(config: dict[str, Any]) -> None:
    for key in config:
        if key not in _KEYS:
            raise UserError(f"{key}: not a key of the evaluation. {closest(key, _KEYS)}")
    for key, hint in _VALUES.items():
        config[key] = typed(config[key], hint, key)
    if (config["samples"] is None) == (config["checkpoint"] is None):
        raise UserError("samples, checkpoint: give one of samples=PATH and checkpoint=PATH, got both or neither.")
    unused = {} if config["sweep"] is not None else {"calls": "needs sweep=[...]"}
    if config["checkpoint"] is None:
        unused |= {key: "needs checkpoint=..., which makes samples" for key in _SAMPLING if key != "checkpoint"}
    else:
        check_sampling(_options(config, config["sampler"], Path()))
    refuse_unused(config, "evaluate", unused)
    if config["sweep"] is not None:
        _check_sweep(config)


def _check_sweep(config: dict[str, Any]) -> None:
    if config["checkpoint"] is None:
        raise UserError("sweep: needs checkpoint=PATH to sample from, got samples only.")
    calls = config["calls"]
    if not isinstance(config["sweep"], list) or not config["sweep"]:
        raise UserError(f"sweep: must be a list of samplers such as [heun,ddim], got {config['sweep']!r}.")
    if not isinstance(calls, list) or not calls or not all(type(c) is int and c >= 1 for c in calls):
        raise UserError(f"calls: must be a list of integers >= 1 such as [8,18,35], got {calls!r}.")


def _check_fit(config: dict[str, Any], source: Any) -> None:
    r"""Whether the samples can be measured against the data is known before they are made."""
    from scoregen.commands.sample import require_shape

    if config["checkpoint"] is None:
        return
    if config["n"] < 2:
        raise UserError(f"n: must be >= 2 to be measured, got {config['n']}.")
    require_shape(config["checkpoint"], source)


def with_channels(node: dict[str, Any], source: Any) -> dict[str, Any]:
    r"""The extractor's node with what only the data know."""
    open_channels = accepts(node, "channels") and node.get("channels") is None
    return {**node, "channels": source.shape[0]} if open_channels else node


def _sample(config: dict[str, Any], sampler: dict[str, Any], out: Path) -> Path:
    r"""Runs sample.py's command; what is there already is kept."""
    from scoregen import parallel
    from scoregen.commands.sample import generate

    generate(_options(config, sampler, out), out)
    parallel.initialize()
    return out


def _options(config: dict[str, Any], sampler: dict[str, Any], out: Path) -> dict[str, Any]:
    r"""What sample.py would be asked for."""
    options = {key: config[key] for key in _SAMPLING}
    return options | {"sampler": sampler, "out": str(out), "format": "npz", "dry_run": False}


def _measure(config, source, extractor, settings, out: Path, record: dict, samples: str | Path, file: Path) -> Any:
    r"""One evaluation: the report, printed and written by the first process."""
    import hashlib

    from scoregen.metrics import evaluate, read_samples
    from scoregen.parallel import device, rank

    images = read_samples(samples)
    protocol = {"samples": str(samples), **_provenance(samples)}
    cache = None if config["cache"] is None else Path(config["cache"])
    try:
        report = evaluate(images, source, extractor, settings, cache, device(), protocol)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f"samples: {error}") from error
    if isinstance(protocol.get("label"), str | list) and protocol["label"] != "random":
        report.warnings.append(_BALANCED)
    given = {"samples_sha256": hashlib.sha256(images.contiguous().numpy()).hexdigest()} if config["samples"] else {}
    _claim(out, record | given, write=True)
    if rank() == 0:
        print(report.table())
        print(f"\n{report.write(file)}")
    return report


def _provenance(samples: str | Path) -> dict[str, Any]:
    r"""How sample.py made them, as far as that is recorded; nothing that the record names is built."""
    from scoregen.metrics import read_record

    record = read_record(samples)
    if not isinstance(record.get("sampler"), dict):
        return {"sampler": "unknown", "network_calls": None, "seed": None}
    name = str(record["sampler"].get("_target_")).rpartition(".")[2]
    kept = ("network_calls", "seed", "checkpoint", "weights", "label", "guidance", "precision")
    return {"sampler": name, "sampler_config": record["sampler"], **{key: record.get(key) for key in kept}}


def _sweep(config: dict[str, Any], measure: Callable[[Path, Path], Any], name_of_distance: str, out: Path) -> None:
    import json

    from scoregen.metrics.sweep import Point, save_figure, table
    from scoregen.parallel import rank

    points, reports = [], []
    sde = _process(config["checkpoint"])
    plans = [(name, *plan) for name in config["sweep"] for plan in _plans(name, config["calls"], sde)]
    for name, node, steps, calls in plans:
        folder = out / f"{name}_{calls:03d}_calls"
        report = measure(_sample(config, node, folder), folder / "metrics.json")
        reports.append(report.as_dict())
        points.append(Point(name, steps, calls, report[name_of_distance]))
    if rank() == 0:
        write_atomically(out / "sweep.json", lambda file: file.write(json.dumps(reports, indent=1).encode()))
        print(table(points))
        print(save_figure(points, out / "sweep.png"))


def _process(checkpoint: str) -> Any:
    from scoregen.checkpoint import find, read_config

    return build(read_config(find(checkpoint))["sde"], trusted=False, where="sde")


def _plans(name: str, calls: list[int], sde: Any) -> list[tuple[dict[str, Any], int, int]]:
    r"""(node, steps, calls) for each wish: the most steps whose calls do not exceed it."""
    from scoregen.commands.calls import network_calls

    node, found = _sampler_node(name), {}
    for wish in sorted(calls):
        for steps in range(wish, 0, -1):
            plan = {**node, "steps": steps}
            used = network_calls(build(plan, where=f"sampler {name}"), sde)
            if used <= wish:
                found[used] = (plan, steps, used)
                break
    if not found:
        raise UserError(f"calls: sampler {name} needs more than {max(calls)} calls for one step; give larger numbers.")
    return list(found.values())


def _sampler_node(name: str) -> Any:
    r"""conf/sampler/<name>.yaml, composed by the running command."""
    from hydra import compose
    from omegaconf import OmegaConf

    return OmegaConf.to_container(compose("evaluate", [f"sampler={name}"]).sampler, resolve=True)


main = entry("evaluate", run)
