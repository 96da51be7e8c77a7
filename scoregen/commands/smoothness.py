r"""Smoothness from the command line: `python -m scoregen.metrics smoothness checkpoint=PATH data=mnist`."""

from pathlib import Path
from typing import Any

from scoregen.command_line import entry
from scoregen.commands.output import claim, origin
from scoregen.config import build, typed
from scoregen.errors import UserError, closest

_VALUES: dict[str, Any] = {
    "checkpoint": str | None,
    "weights": str,
    "pairs": int,
    "points": int,
    "batch_size": int,
    "seed": int,
    "label": int | None,
    "inversion": int,
    "out": str | None,
}
_KEYS = (*_VALUES, "features", "sampler", "data", "model", "chart")
_RECORDED = ("weights", "pairs", "points", "seed", "label", "inversion", "features", "sampler", "data")


def run(config: dict[str, Any], folder: Path) -> None:
    r"""Measures, prints tables, writes smoothness.json and strips of interpolations.

    Args:
        config: resolved configuration. folder: Hydra's run folder, where results go unless `out` is given.
    """
    _check(config)

    from scoregen import parallel
    from scoregen.checkpoint import find, load
    from scoregen.commands.calls import network_calls
    from scoregen.commands.evaluate import with_channels
    from scoregen.metrics import istd
    from scoregen.samplers.from_noise import FromNoise

    source = build(config["data"], where="data")
    extractor = build(with_channels(config["features"], source), where="features")
    sampler = build(config["sampler"], where="sampler")
    checkpoint = find(config["checkpoint"]).resolve()
    parallel.initialize()
    out = Path(parallel.gather(str(Path(config["out"] or folder).resolve()))[0])
    model = load(checkpoint, config["weights"], parallel.device())
    _check_model(model, source, config)
    calls = network_calls(sampler, model.sde)
    try:
        generate = FromNoise(model, sampler, config["label"])
    except (ValueError, TypeError) as error:
        raise UserError(f"sampler: {error}") from error
    record = {key: config[key] for key in _RECORDED} | origin(checkpoint, config["weights"])
    claim(out, record, "smoothness_of.json", ("smoothness.json", "strips.png"), write=True)
    options = {key: config[key] for key in ("pairs", "points", "seed", "batch_size")}
    try:
        found = istd(generate, source.train, extractor=extractor, device=parallel.device(), **options)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f"smoothness: {error}") from error
    if parallel.rank() == 0:
        facts = {"checkpoint": str(checkpoint), "weights": config["weights"], "data": source.name}
        facts |= {"sampler": config["sampler"], "network_calls": calls}
        facts |= {"label": config["label"]}
        _report(found, facts, _inversion(model, source, config), out)
        _pictures(generate, source.shape, config, out)


def _check(config: dict[str, Any]) -> None:
    for key in config:
        if key not in _KEYS:
            raise UserError(f"{key}: not a key of the smoothness report. {closest(key, _KEYS)}")
    for key, hint in _VALUES.items():
        config[key] = typed(config[key], hint, key)
    for key, least in (("pairs", 2), ("points", 3), ("batch_size", 1), ("inversion", 0)):
        if config[key] < least:
            raise UserError(f"{key}: must be >= {least}, got {config[key]}.")
    if config["checkpoint"] is None:
        raise UserError("checkpoint: give checkpoint=outputs/.../checkpoints/last (or a run folder).")


def _check_model(model: Any, source: Any, config: dict[str, Any]) -> None:
    from scoregen.commands.sample import require_shape

    require_shape(config["checkpoint"], source)
    classes = model.num_classes
    if config["label"] is not None and not (classes and 0 <= config["label"] < classes):
        known = f"lie in 0..{classes - 1}" if classes else "be null for an unconditional model"
        raise UserError(f"label: must {known}, got {config['label']}.")


def _inversion(model: Any, source: Any, config: dict[str, Any]) -> list[Any]:
    r"""Reconstruction errors of held-out images, encoded and decoded with their labels."""
    from scoregen.metrics import reconstruction_sweep

    x, label = source.test[: config["inversion"]]
    if not len(x) or x.ndim != 4:
        return []
    device = next(model.parameters()).device
    label = None if label is None or model.num_classes is None else label.to(device)
    return reconstruction_sweep(model, x.to(device), label)


def _report(found: Any, facts: dict[str, Any], inversion: list[Any], out: Path) -> None:
    from dataclasses import asdict

    from scoregen.metrics import Report
    from scoregen.metrics.reconstruction import sweep_table

    details = {"inversion": [asdict(r) for r in inversion]}
    report = Report(found.numbers(), found.protocol | facts, details)
    print(report.table())
    if inversion:
        print(f"\nencoded and decoded, held-out images:\n\n{sweep_table(inversion)}")
    print(f"\n{report.write(out / 'smoothness.json')}")


def _pictures(generate: Any, shape: tuple[int, ...], config: dict[str, Any], out: Path) -> None:
    r"""Strips of the first pairs at equidistant weights, and the same paths at constant speed."""
    from scoregen.metrics.smoothness import constant_speed_path, noise_pairs, path_images
    from scoregen.pictures import save_grid

    if len(shape) != 3 or shape[0] not in (1, 3):
        return
    device = next(generate.denoiser.parameters()).device
    a, b = noise_pairs(min(8, config["pairs"]), shape, config["seed"], device=device)
    points = config["points"]
    even = path_images(generate, a, b, points)
    _, steady = constant_speed_path(generate, a, b, points=points, probes=points)
    for name, images in (("strips.png", even), ("strips_constant_speed.png", steady)):
        print(save_grid(images.transpose(0, 1).flatten(0, 1), out / name, points))


main = entry("smoothness", run)
