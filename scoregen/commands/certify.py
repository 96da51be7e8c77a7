r"""Certification from the command line: a classifier, data and a noise to certificates, a table, a curve and a page."""

import hashlib
import sys
import time
from pathlib import Path
from typing import Any

from scoregen.command_line import entry
from scoregen.config import build, typed
from scoregen.errors import UserError, closest

_KEYS = (
    *("checkpoint", "weights", "classifier", "data", "model", "chart", "noise", "sampler", "purify", "compare", "out"),
    *("method", "n", "n0", "alpha", "max_radius", "step", "max_inputs", "seed", "batch_size", "precision", "strict"),
)
_VALUES = {
    **dict.fromkeys(("n", "n0", "seed"), int),
    **dict.fromkeys(("max_inputs", "batch_size"), int | None),
    **dict.fromkeys(("max_radius", "step"), float | None),
    **dict.fromkeys(("checkpoint", "classifier", "out", "precision"), str | None),
    **{"alpha": float, "strict": bool, "weights": str, "method": str},
}
_PURIFY = {"checkpoint": str | None, "weights": str, "votes": int, "seed": int}
_PRECISIONS = {None: None, "bf16": "bfloat16", "fp16": "float16"}


def run(config: dict[str, Any], folder: Path) -> None:
    r"""Certifies what is not certified yet and reports, or compares earlier runs.

    Args:
        config: resolved configuration. folder: Hydra's run folder, where results go unless `out` is given.
    """
    from scoregen import parallel

    _check(config)
    parallel.initialize()
    out = Path(parallel.gather(str(Path(config["out"] or folder).resolve()))[0])
    try:
        if config["compare"] is not None:
            _compare([Path(str(path)) for path in config["compare"]], out)
        else:
            _certify(config, out)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error


def _check(config: dict[str, Any]) -> None:
    for key in config:
        if key not in _KEYS:
            raise UserError(f"{key}: not a key of the certification. {closest(key, _KEYS)}")
    for key, hint in _VALUES.items():
        config[key] = typed(config[key], hint, key)
    if config["precision"] not in _PRECISIONS:
        choices = [key for key in _PRECISIONS if key]
        raise UserError(f"precision: must be {' or '.join(choices)} or null, got {config['precision']!r}.")
    if not isinstance(config["purify"], dict):
        raise UserError(
            f"purify: must be a mapping, got {config['purify']!r}; purify.checkpoint=null certifies without a denoiser."
        )
    for key in config["purify"]:
        if key not in _PURIFY:
            raise UserError(f"purify.{key}: not a key of the certification. {closest(key, _PURIFY)}")
    config["purify"] = {key: typed(config["purify"].get(key), hint, f"purify.{key}") for key, hint in _PURIFY.items()}
    if config["compare"] is not None:
        if not isinstance(config["compare"], list):
            config["compare"] = [config["compare"]]
    elif (config["checkpoint"] is None) == (config["classifier"] is None):
        raise UserError(
            "checkpoint, classifier: give one of checkpoint=PATH (trained here) and classifier=SOURCE (from elsewhere),"
            " got both or neither."
        )


def _certify(config: dict[str, Any], out: Path) -> None:
    import torch

    from scoregen import parallel
    from scoregen.smoothing.choice import make_method
    from scoregen.smoothing.classifiers import probe
    from scoregen.smoothing.dataset import certify_dataset, every_kth
    from scoregen.smoothing.engine import placed
    from scoregen.smoothing.smoothed_classifier import SmoothedClassifier

    noise = build(config["noise"], where="noise")
    asked = {key: config[key] for key in ("n", "n0", "alpha", "max_radius", "step")}
    method = make_method(config["method"], noise, **asked)
    source = build(config["data"], where="data")
    if source.test.label is None:
        raise UserError("data: certified accuracy needs labels, and these data have none.")
    device = parallel.device()
    classifier = _classifier(config, noise, device)
    precision = _PRECISIONS[config["precision"]]
    first = source.test[0][0].to(device)
    first = first.to(*placed(classifier, first))
    classes, labels = probe(classifier, first), int(source.test.label.max()) + 1
    if labels > classes:
        raise UserError(f"classifier: has {classes} classes, {source.name} has {labels}; they do not belong together.")
    if (least := int(source.test.label.min())) < 0:
        raise UserError(f"data: labels must be >= 0, got {least} in {source.name}; -1 stands for an abstention.")
    g = SmoothedClassifier(
        classifier,
        noise,
        classes,
        batch_size=config["batch_size"],
        strict=config["strict"],
        precision=precision and getattr(torch, precision),
    )
    indices = every_kth(len(source.test), config["max_inputs"])
    names = {key: config[key] for key in ("checkpoint", "classifier", "weights")}
    for key, name in names.items():  # the same file by another path is the same job
        names[key] = str(Path(name).resolve()) if key != "weights" and name and Path(name).exists() else name
    known_labels = hashlib.sha256(source.test.label.numpy().tobytes()).hexdigest()[:16]
    description = {**names, "data": source.name, "data_hash": source.test.fingerprint(), "labels_hash": known_labels}
    if config["purify"]["checkpoint"] is not None:
        denoiser = str(Path(config["purify"]["checkpoint"]).resolve())
        description |= {"purify": {**config["purify"], "checkpoint": denoiser}, "sampler": config["sampler"]}
    fresh = parallel.gather(not any(out.glob("certificates*.jsonl")))[0]  # before any process opens its file
    start = time.perf_counter()
    found = certify_dataset(g, _On(source.test, device), indices, method, config["seed"], out, description)
    seconds = time.perf_counter() - start
    if not found.complete:
        raise UserError(
            f"out: '{out}' has {len(found.records)} of {len(indices)} certificates after all processes ended; it must "
            f"be a folder that they share."
        )
    if parallel.rank() == 0:
        _report(found, source.test, noise, out)
        if fresh:  # a run that went on says nothing about the whole
            print(f"{seconds / len(indices):.3g} s an input on {parallel.world_size()} process(es)")


class _On:
    r"""A data set with its inputs on a device, where a plain function expects them."""

    def __init__(self, data: Any, device: Any) -> None:
        self.data, self.device = data, device

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        x, label = self.data[i]
        return x.to(self.device), label


def _classifier(config: dict[str, Any], noise: Any, device: Any) -> Any:
    r"""The base classifier, with a denoiser before it where one is asked for."""
    import torch

    from scoregen.checkpoint import load
    from scoregen.smoothing.classifiers import read_classifier
    from scoregen.smoothing.purify import PurifiedClassifier, check_chart

    classifier: Any
    if config["checkpoint"] is not None:
        classifier = load(config["checkpoint"], config["weights"], device)
        if hasattr(classifier, "sde"):
            raise UserError(
                f"checkpoint: '{config['checkpoint']}' holds a denoiser; give a classifier, and the denoiser as "
                f"purify.checkpoint={config['checkpoint']}."
            )
        classifier = classifier.to(memory_format=torch.channels_last)
    else:
        classifier = read_classifier(config["classifier"], device)
    purify = config["purify"]
    if purify["checkpoint"] is None:
        _check_told(classifier, noise)
        return classifier
    if hasattr(classifier, "noise_sigma"):
        raise UserError(
            f"purify.checkpoint: must be null for a {type(classifier).__name__}, which is told the noise that a "
            f"denoiser takes away, got '{purify['checkpoint']}'."
        )
    denoiser = load(purify["checkpoint"], purify["weights"], device)
    try:
        check_chart(noise, denoiser.sde)
    except ValueError as error:
        raise UserError(f"noise, purify.checkpoint: {error}") from error
    sampler = build(config["sampler"], where="sampler")
    purified = PurifiedClassifier(classifier, denoiser, sampler, noise.sigma, purify["votes"], purify["seed"])
    return purified.eval()


def _check_told(classifier: Any, noise: Any) -> None:
    r"""A classifier that is told its noise level must be told the right one."""
    from scoregen.smoothing.noise import Gaussian

    told = getattr(classifier, "noise_sigma", None)
    if told is not None and not (isinstance(noise, Gaussian) and noise.sigma == told):
        raise UserError(
            f"noise: must be Gaussian with sigma={told:g}, which this {type(classifier).__name__} was trained for and "
            f"is told, got {noise!r}; train it with model.noise_sigma and loss.noise_sigma of the certificate."
        )


def _report(run: Any, data: Any, noise: Any, out: Path) -> None:
    from scoregen.smoothing.page import write_page
    from scoregen.smoothing.report import curve, table

    text = table({"certified accuracy, %": run}, implies=noise.implies)
    (out / "table.md").write_text(text + "\n")
    curve({out.name: run}, out / "curve.png")
    write_page(out / "report.html", run, data, noise)
    print(text)
    print(f"\n{out / 'report.html'}")


def _compare(folders: list[Path], out: Path) -> None:
    from scoregen.parallel import rank
    from scoregen.smoothing.report import curve, names_of, table
    from scoregen.smoothing.results import load

    if any(out.glob("certificates*.jsonl")):
        raise UserError(f"out: '{out}' holds certificates, whose table would be overwritten; give another folder.")
    if len(set(folders)) < len(folders):
        raise UserError(f"compare: must name different folders, got {', '.join(map(str, folders))}.")
    found = {folder: load(folder) for folder in folders}
    for folder, run in found.items():
        if not run.complete:
            raise UserError(
                f"compare: '{folder}' has {len(run.records)} of {len(run.header['indices'])} certificates, and those "
                f"that are done first are no random sample; finish it by its command."
            )
    for key, name in (("norm", "norm of the radii"), ("data_hash", "data"), ("labels_hash", "labels")):
        values = {run.header.get(key) or run.header["description"].get(key) for run in found.values()} - {None}
        if len(values) > 1:
            raise UserError(f"compare: the runs must have one {name}, got {', '.join(sorted(map(str, values)))}.")
    runs = names_of(found)
    if rank() == 0:
        out.mkdir(parents=True, exist_ok=True)
        text = table(runs)
        (out / "table.md").write_text(text + "\n")
        curve(runs, out / "curve.png")
        print(text)
        print(f"\n{out / 'curve.png'}")


def main() -> None:
    r"""The command. `compare=a,b` would be a sweep to Hydra, so it becomes the list `compare=[a,b]`."""
    sys.argv = [_listed(argument) for argument in sys.argv]
    entry("certify", run)()


def _listed(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if key != "compare" or not equals or value.startswith("[") or value in ("null", ""):
        return argument
    quoted = ",".join("'" + path.replace("'", "\\'") + "'" for path in value.split(","))
    return f"compare=[{quoted}]"
