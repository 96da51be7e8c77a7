r"""Sampling from a checkpoint: sharded over processes, one seed an image, resumable."""

from pathlib import Path
from typing import Any

from scoregen.command_line import entry, refuse_unused
from scoregen.commands.interpolate import interpolate
from scoregen.commands.output import claim, origin, write_atomically
from scoregen.commands.restore import VALUES, restore
from scoregen.config import build, typed
from scoregen.errors import UserError, closest

_SAMPLING: dict[str, Any] = {
    "checkpoint": str | None,
    "weights": str,
    "n": int,
    "batch_size": int,
    "out": str | None,
    "format": str,
    "seed": int,
    "guidance": float,
    "precision": str,
    "dry_run": bool,
}
_CHOICES = {"format": ("png", "npz"), "weights": ("ema", "model"), "precision": ("no", "bf16")}
_KEYS = (*_SAMPLING, *VALUES, "label", "sampler", "interpolate", "interpolation")


def run(config: dict[str, Any], folder: Path) -> None:
    r"""Generates, restores or interpolates.

    Args:
        config: resolved configuration. folder: Hydra's run folder, where the results go unless `out` is given.
    """
    for key in config:
        if key not in _KEYS:
            raise UserError(f"{key}: not a key of the sampling configuration. {closest(key, _KEYS)}")
    for key, hint in VALUES.items():
        config[key] = typed(config[key], hint, key)
    _refuse_unused(config)
    if config["restore"] is None and config["interpolate"] is None:
        return generate(config, folder)
    check_sampling(config)
    if config["precision"] != "no":  # inversion and derivatives of the denoiser need its digits
        raise UserError(f"precision: must be no for restore= and interpolate=, got '{config['precision']}'.")
    other = interpolate if config["restore"] is None else restore
    other(config, folder)


def generate(config: dict[str, Any], folder: Path) -> None:
    r"""Generates what is not there yet.

    Args:
        config: the keys of the sampling alone are read. folder: for the samples unless `out` is given.
    """
    check_sampling(config)

    from scoregen import parallel
    from scoregen.checkpoint import find, load

    sampler = build(config["sampler"], where="sampler")
    checkpoint = find(config["checkpoint"]).resolve()
    shape = image_shape(checkpoint)
    parallel.initialize()
    device = parallel.device()
    model = load(checkpoint, config["weights"], device)
    labels = labels_of(config["label"], config["n"], model, config["seed"])
    denoiser = guided(model, config["guidance"], labels)
    record = _record(config, checkpoint, sampler, model.sde)
    out = _output(config, folder, record, shape)
    missing = [i for i in range(config["n"]) if not _path(out, i, config["format"]).exists()]
    todo = parallel.gather(missing)[0]  # the same for all processes, before one of them writes
    _announce(config, checkpoint, sampler, out, len(todo))
    if config["dry_run"]:
        return
    with autocast(config["precision"]):
        _generate(denoiser, sampler, shape, labels, parallel.shard(todo), config, out)
    parallel.barrier()
    if parallel.rank() == 0:
        _finish(config, labels, out)
    parallel.barrier()  # who measures the archive next must not meet an old one


def _refuse_unused(config: dict[str, Any]) -> None:
    r"""Keys of the despeckling, of the interpolation and of sampling say nothing without them."""
    if config["restore"] is not None and config["interpolate"] is not None:
        raise UserError("restore, interpolate: give one of them, got both.")
    unused: dict[str, str] = {}
    if config["restore"] is None:
        unused |= dict.fromkeys(VALUES, "needs restore=..., the speckled images")
        unused["samples"] += " (the number of samples is n)"
    if config["interpolate"] is None:
        unused["interpolation"] = "needs interpolate=..., two seeds or two images"
    else:
        unused |= dict.fromkeys(("n", "batch_size", "format"), "is not used by interpolate=")
    if config["restore"] is not None:
        unused |= dict.fromkeys(("n", "format"), "is not used by restore=")
    refuse_unused(config, "sample", unused)


def check_sampling(config: dict[str, Any]) -> None:
    r"""Refuses keys of the sampling that have another type, or values that it does not know."""
    for key, hint in _SAMPLING.items():
        config[key] = typed(config[key], hint, key)
    for key in ("n", "batch_size"):
        if config[key] < 1:
            raise UserError(f"{key}: must be >= 1, got {config[key]}.")
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            raise UserError(
                f"{key}: must be {' or '.join(choices)}, got '{config[key]}'. {closest(config[key], choices)}"
            )
    if config["checkpoint"] is None:
        raise UserError("checkpoint: give checkpoint=outputs/.../checkpoints/last (or a run folder).")


def autocast(precision: str) -> Any:
    r"""The network in bfloat16, or ("no") as it is; samplers compute in float32 or float64 either way."""
    import torch

    from scoregen.parallel import device

    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16")


def labels_of(label: Any, n: int, model: Any, seed: int):
    r"""None, one label for all, or a list that is repeated; "all" cycles through the classes, "random" draws each."""
    import torch

    from scoregen.commands.hooks import LABEL_STREAM
    from scoregen.rng import generator

    if label is None:
        return None
    classes = getattr(model, "num_classes", None)
    if not classes:
        raise UserError(f"label: the model is unconditional, got label={label}; leave it out.")
    if label == "random":  # independent draws, as data are: what kernel distances expect
        return torch.cat([torch.randint(classes, (1,), generator=generator(seed, LABEL_STREAM, i)) for i in range(n)])
    values = list(range(classes)) if label == "all" else label if isinstance(label, list) else [label]
    if not values:
        raise UserError("label: must not be an empty list; give label=all, label=3 or label=[0,1].")
    for value in values:
        if type(value) is not int or not 0 <= value < classes:
            raise UserError(f"label: must lie in 0..{classes - 1} (or be 'all' or 'random'), got {value!r}.")
    return torch.tensor([values[i % len(values)] for i in range(n)])


def guided(model: Any, guidance: float, labels: Any) -> Any:
    r"""The denoiser under classifier-free guidance, where it is asked for."""
    if guidance == 1:
        return model
    if labels is None:
        raise UserError(
            f"guidance: needs labels, got guidance={guidance} without; give label=all, label=3 or label=[0,1]."
        )
    from scoregen.models import ClassifierFreeGuidance

    try:
        return ClassifierFreeGuidance(model, guidance)
    except ValueError as error:
        raise UserError(f"guidance: {error}") from error


def image_shape(checkpoint: Path) -> tuple[int, ...]:
    r"""Shape of what the denoiser of a checkpoint makes, (*S)."""
    from scoregen.checkpoint import read_config

    model = read_config(checkpoint)["model"]
    node = model
    while "network" in node:  # adapters stand around a network
        node = node["network"]
    shape = node.get("shape")
    if "pipeline" in model:
        raise UserError(
            f"checkpoint: '{checkpoint}' samples latents of a text-to-image pipeline; load its adapters in diffusers "
            f"or call it from Python (docs/smooth_lora.md)."
        )
    if "network" not in model or shape is None:
        raise UserError(
            f"checkpoint: '{checkpoint}' holds no denoiser ({model['_target_']}); give one of a diffusion model."
        )
    return tuple(shape)


def require_shape(checkpoint: str, source: Any) -> None:
    r"""Raises UserError where a checkpoint makes samples of another shape than the data's."""
    from scoregen.checkpoint import find

    shape = image_shape(find(checkpoint))
    if shape != tuple(source.shape):
        raise UserError(f"data: {source.name} has shape {source.shape}, the model makes {shape}; give its own data.")


def _path(out: Path, index: int, kind: str) -> Path:
    return out / "images" / f"{index:06d}.png" if kind == "png" else out / "parts" / f"{index:06d}.npy"


def _record(config: dict[str, Any], checkpoint: Path, sampler: Any, sde: Any) -> dict[str, Any]:
    r"""What the samples are a function of, and what an image cost."""
    from scoregen.commands.calls import network_calls

    kept = ("weights", "format", "seed", "label", "guidance", "precision", "sampler")
    record = {key: config[key] for key in kept} | origin(checkpoint, config["weights"])
    return record | {"network_calls": network_calls(sampler, sde) * (1 if config["guidance"] == 1 else 2)}


def _output(config: dict[str, Any], folder: Path, record: dict[str, Any], shape: tuple[int, ...]) -> Path:
    r"""The output folder, with a record of what it holds; refuses one that holds something else."""
    from scoregen.parallel import gather

    out = Path(gather(str(Path(config["out"] or folder).resolve()))[0])
    if config["format"] == "png" and not (len(shape) == 3 and shape[0] in (1, 3)):
        raise UserError(f"format: png needs grey or RGB images, the model makes shape {shape}; give format=npz.")
    claim(out, record, "samples.json", ("images", "parts", "grid.png", "samples.npz"), write=not config["dry_run"])
    there = [int(path.stem) for path in _path(out, 0, config["format"]).parent.glob("*") if path.stem.isdigit()]
    if there and max(there) >= config["n"]:
        raise UserError(f"n: '{out}' holds {max(there) + 1} samples, asked for are {config['n']}; give another out.")
    if not config["dry_run"]:
        _path(out, 0, config["format"]).parent.mkdir(parents=True, exist_ok=True)
    return out


def _announce(config: dict[str, Any], checkpoint: Path, sampler: Any, out: Path, todo: int) -> None:
    from scoregen.parallel import rank

    if rank() == 0:
        which = "averaged (EMA)" if config["weights"] == "ema" else "last step's"
        print(f"checkpoint: {checkpoint}, {which} weights")
        steps = f", {sampler.steps} steps" if hasattr(sampler, "steps") else ""
        print(f"sampler: {type(sampler).__name__}{steps}; {config['n']} samples, {config['n'] - todo} already there")
        print(f"out: {out}")


def _generate(denoiser, sampler, shape, labels, indices: list[int], config: dict[str, Any], out: Path) -> None:
    from scoregen.commands.hooks import SAMPLE_STREAM
    from scoregen.progress import progress
    from scoregen.rng import generators

    device = next(denoiser.parameters()).device
    bar = progress(total=len(indices), description="sampling", unit="image")
    size = 1 if sampler.couples_batch else config["batch_size"]  # else a sample would depend on its company
    for first in range(0, len(indices), size):
        batch = indices[first : first + size]
        label = None if labels is None else labels[batch].to(device)
        draws = generators(config["seed"], SAMPLE_STREAM, 0, batch)
        samples = sampler(denoiser, (len(batch), *shape), label=label, generator=draws)
        for index, sample in zip(batch, samples, strict=True):
            if not bool(sample.isfinite().all()):
                raise UserError(
                    f"checkpoint, sampler: sample {index} holds NaN or infinity; take another sampler, more steps or "
                    f"precision=no, or look whether the training diverged."
                )
            _write(sample, _path(out, index, config["format"]))
        bar.update(len(batch))
    bar.close()


def _write(sample, path: Path) -> None:
    import numpy as np

    from scoregen.pictures import save_image

    if path.suffix == ".png":
        save_image(sample, path)
        return
    write_atomically(path, lambda file: np.save(file, sample.float().cpu().numpy()))


def _finish(config: dict[str, Any], labels: Any, out: Path) -> None:
    r"""The grid, and the archive (images, and labels where they were asked for) for format=npz."""
    import numpy as np
    import torch

    from scoregen.pictures import save_grid

    shown = [_read(_path(out, i, config["format"])) for i in range(min(config["n"], 100))]
    columns = 10 if config["label"] == "all" else None
    print(save_grid(torch.from_numpy(np.stack(shown)), out / "grid.png", columns))
    if config["format"] == "npz":
        images = np.stack([_read(_path(out, i, "npz")) for i in range(config["n"])])
        parts = {"images": images} | ({} if labels is None else {"labels": labels.numpy()})
        print(write_atomically(out / "samples.npz", lambda file: np.savez(file, **parts)))


def _read(path: Path):
    import numpy as np
    from PIL import Image

    if path.suffix == ".npy":
        return np.load(path)
    pixels = np.asarray(Image.open(path), dtype=np.float32) / 255
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


main = entry("sample", run)
