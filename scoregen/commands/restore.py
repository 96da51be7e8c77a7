r"""Despeckling of pictures with a checkpoint: `python sample.py checkpoint=PATH restore=PATH looks=4`."""

from itertools import groupby
from pathlib import Path
from typing import Any

from scoregen.commands.output import claim, origin
from scoregen.errors import UserError

# the keys of conf/sample.yaml that only restoring reads, and what they are
VALUES: dict[str, Any] = {
    "restore": str | None,
    "looks": float | None,
    "samples": int,
    "probes": int,
    "tile": int | None,
    "overlap": int | None,
    "floor": float | None,
    "scale": float,
}
_STREAM = 17
_RECORDED = ("weights", "seed", "looks", "samples", "probes", "tile", "overlap", "floor", "scale")


def restore(config: dict[str, Any], folder: Path) -> None:
    r"""Restores what is not there yet.

    Args:
        config: configuration of the sampling command, checked for types. folder: for results unless `out` is given.
    """
    _check(config)

    from scoregen import parallel
    from scoregen.checkpoint import find, load
    from scoregen.commands.intensities import open_intensities
    from scoregen.commands.sample import image_shape
    from scoregen.config import build

    sampler = build(config["sampler"], where="sampler") if config["samples"] else None
    images = open_intensities(config["restore"])
    checkpoint = find(config["checkpoint"]).resolve()
    parallel.initialize()
    model = load(checkpoint, config["weights"], parallel.device())
    despeckler = _despeckler(config, model, image_shape(checkpoint), sampler)
    _check_images(images, despeckler, config)
    out = _output(config, folder, checkpoint)
    missing = [k for k in range(len(images)) if not images.place(k, out).exists()]
    todo = parallel.gather(missing)[0]  # the same for all processes, before one of them writes
    _announce(config, checkpoint, despeckler, images, len(todo), out)
    if config["dry_run"]:
        return
    _run(despeckler, images, parallel.shard(todo), config, out)
    parallel.barrier()
    if parallel.rank() == 0:
        print(images.finish(out))


def _check(config: dict[str, Any]) -> None:
    if config["looks"] is None or not config["looks"] > 0:
        raise UserError(f"looks: must be > 0, the number of looks of the intensities, got {config['looks']}.")
    for key in ("samples", "probes"):
        if config[key] < 0:
            raise UserError(f"{key}: must be >= 0, got {config[key]}.")
    for key in ("floor", "scale"):
        if config[key] is not None and not 0 < config[key] < float("inf"):
            raise UserError(f"{key}: must be > 0 and finite, got {config[key]}.")
    if config["label"] is not None or config["guidance"] != 1:
        raise UserError(f"label: not used by restore=, got label={config['label']}, guidance={config['guidance']}.")


def _despeckler(config: dict[str, Any], model: Any, shape: tuple[int, ...], sampler: Any) -> Any:
    r"""The checkpoint's denoiser on tiles of the size of its images, or of `tile`."""
    from scoregen.samplers import Despeckler, Tiled

    if len(shape) != 3:
        raise UserError(f"checkpoint: restore= needs a denoiser of images, this one makes shape {shape}.")
    try:
        tiled = Tiled(model, config["tile"] or min(shape[1:]), config["overlap"], config["batch_size"], shape[0])
    except ValueError as error:
        raise UserError(f"tile: {error}") from error
    try:
        despeckler = Despeckler(tiled, config["looks"], sampler)
        if config["samples"] > 1:
            despeckler.check_stochastic()
    except TypeError as error:
        raise UserError(f"checkpoint: {error}") from error
    except ValueError as error:
        raise UserError(f"{'sampler' if 'sampler' in str(error) else 'looks'}: {error}") from error
    return despeckler


def _check_images(images: Any, despeckler: Any, config: dict[str, Any]) -> None:
    r"""Reads every image once, so that one that cannot be restored is known before any work."""
    channels = despeckler.denoiser.denoiser.channels
    for k, name in enumerate(images.names):
        x = _read(images, k, config)
        if channels not in (1, len(x)):
            raise UserError(f"restore: '{name}' has {len(x)} channels, the model {channels}; convert it.")
        try:
            despeckler.observe(x[None])
        except ValueError as error:
            raise UserError(f"restore: '{name}': {error}") from error


def _read(images: Any, k: int, config: dict[str, Any]):
    x = images.read(k) / config["scale"]
    return x if config["floor"] is None else x.clamp_min(config["floor"] / config["scale"])


def _output(config: dict[str, Any], folder: Path, checkpoint: Path) -> Path:
    from scoregen.parallel import gather

    source = Path(config["restore"]).resolve()
    out = Path(gather(str(Path(config["out"] or folder).resolve()))[0])
    if out == source or source in out.parents:
        raise UserError(f"out: '{out}' lies in the folder to restore; give another out.")
    record = {key: config[key] for key in _RECORDED}
    record |= {"sampler": config["sampler"] if config["samples"] else None}
    record |= origin(checkpoint, config["weights"]) | {"restore": str(source)}
    claim(out, record, "restored.json", ("images", "std", "parts", "restored.npz"), write=not config["dry_run"])
    return out


def _announce(config, checkpoint: Path, despeckler: Any, images: Any, todo: int, out: Path) -> None:
    from scoregen.parallel import rank

    if rank() == 0:
        print(f"checkpoint: {checkpoint}, {'averaged (EMA)' if config['weights'] == 'ema' else 'last step'} weights")
        tiled, s = despeckler.denoiser.denoiser, despeckler.s.item()
        print(
            f"speckle: {config['looks']:g} looks, noise ratio {s:.4g}; tiles of {tiled.size}, overlap {tiled.overlap}"
        )
        name = type(despeckler.sampler).__name__
        what = f"mean of {config['samples']} draws of {name}" if config["samples"] > 1 else f"one draw of {name}"
        one = (
            f"posterior mean of {1 + 2 * config['probes']} calls" if config["probes"] else "geometric mean of one call"
        )
        print(f"estimate: {what if config['samples'] else one}")
        print(f"images: {len(images)}, {len(images) - todo} already there\nout: {out}")


def _run(despeckler: Any, images: Any, indices: list[int], config: dict[str, Any], out: Path) -> None:
    import torch

    from scoregen.progress import progress
    from scoregen.rng import generators

    bar = progress(total=len(indices), description="restoring", unit="image")
    pixels = config["batch_size"] * despeckler.denoiser.denoiser.size**2
    for shape, group in groupby(indices, key=images.shape):
        alike = list(group)
        size = max(1, pixels // (shape[1] * shape[2]))
        for batch in (alike[i : i + size] for i in range(0, len(alike), size)):
            x = torch.stack([_read(images, k, config) for k in batch])
            draws = generators(config["seed"], _STREAM, 0, [images.key(k) for k in batch])
            mean, deviation = _estimate(despeckler, x, config, draws)
            for i, k in enumerate(batch):
                spread = None if deviation is None else deviation[i] * config["scale"]
                images.write(k, out, mean[i] * config["scale"], spread)
            bar.update(len(batch))
    bar.close()


def _estimate(despeckler: Any, x: Any, config: dict[str, Any], draws: list) -> tuple[Any, Any]:
    if config["samples"] > 1:
        return despeckler.sample_mean(x, config["samples"], draws)
    if config["samples"] == 1:
        return despeckler.sample(x, draws), None
    return despeckler.mean(x, config["probes"], draws) if config["probes"] else (despeckler.log_mean(x), None)
