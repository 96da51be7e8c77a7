r"""Interpolations: `python sample.py checkpoint=PATH interpolate=[0,1]`, seeds, or `interpolate=[a.png,b.png]`, images.

Two seeds: the path between the noises from which `sample.py seed=...` makes its first image, by `sampler`. Two images:
both are encoded by the probability flow (Runge-Kutta, whatever the sampler), their latents blended, the blends decoded.
"""

from pathlib import Path
from typing import Any

from scoregen.commands.output import claim, origin, write_atomically
from scoregen.config import build, typed
from scoregen.errors import UserError, absent, closest

_RECORDED = ("weights", "label", "seed", "guidance", "sampler", "interpolate", "interpolation")


class Interpolation:
    r"""How the images between two ends are chosen and shown.

    Args:
        frames: images of the path, ends included, >= 2.
        blend: "slerp" (along the sphere) or "linear" (variance-preserving).
        constant_speed: weights at which the images change evenly, instead of equidistant ones; for seeds.
        duration: of a frame of the GIF, seconds, .01 to 600.

    Raises:
        ValueError: values out of range.
    """

    def __init__(
        self, frames: int = 11, blend: str = "slerp", constant_speed: bool = False, duration: float = 0.12
    ) -> None:
        from scoregen.samplers import slerp, variance_preserving

        blends = {"slerp": slerp, "linear": variance_preserving}
        if frames < 2 or not 0.01 <= duration <= 600:  # a GIF counts hundredths of a second, in 16 bits
            raise ValueError(
                f"frames must be >= 2 and duration in [0.01, 600] s, got frames={frames}, duration={duration}."
            )
        if blend not in blends:
            raise ValueError(f"blend must be {' or '.join(blends)}, got '{blend}'. {closest(blend, blends)}")
        self.frames, self.blend, self.duration = frames, blends[blend], duration
        self.constant_speed = constant_speed


def interpolate(config: dict[str, Any], folder: Path) -> None:
    r"""Writes strip.png, path.gif and frames.npz: a row for each label.

    Args:
        config: configuration of the sampling command, checked for types. folder: for results unless `out` is given.
    """
    ends = _ends(config["interpolate"])
    way = build(config["interpolation"], where="interpolation")

    import torch

    from scoregen import parallel
    from scoregen.checkpoint import find, load
    from scoregen.commands.sample import guided, image_shape, labels_of

    checkpoint = find(config["checkpoint"]).resolve()
    sampler = build(config["sampler"], where="sampler")
    shape = image_shape(checkpoint)
    parallel.initialize()
    model = load(checkpoint, config["weights"], parallel.device())
    labels = labels_of(config["label"], _rows(config["label"], model), model, config["seed"])
    denoiser = guided(model, config["guidance"], labels)
    between = _between_seeds if isinstance(ends[0], int) else _between_images
    paths = [between(denoiser, sampler, ends, label, shape, way) for label in _each(labels)]
    out = Path(parallel.gather(str(Path(config["out"] or folder).resolve()))[0])
    record = {key: config[key] for key in _RECORDED} | origin(checkpoint, config["weights"])
    if isinstance(ends[0], str):
        del record["sampler"]  # images do not use it
    known = ("strip.png", "path.gif", "frames.npz", "images", "parts")
    claim(out, record, "interpolation.json", known, write=not config["dry_run"])
    if config["dry_run"] or parallel.rank() != 0:
        return
    _write(torch.stack([path() for path in paths]), way, out)


def _rows(label: Any, model: Any) -> int:
    r"""One a label."""
    if isinstance(label, list):
        return len(label)
    return model.num_classes or 1 if label == "all" else 1


def _each(labels: Any) -> list[int | None]:
    return [None] if labels is None else labels.tolist()


def _ends(value: Any) -> list[Any]:
    r"""Two seeds, or two existing files."""
    if not isinstance(value, list) or len(value) != 2 or len({type(v) for v in value}) != 1:
        raise UserError(f"interpolate: must be two seeds [0,1] or two images [a.png,b.png], got {value!r}.")
    for end in value:
        typed(end, int | str, "interpolate")
        if isinstance(end, str) and not Path(end).is_file():
            raise UserError(f"interpolate: {absent(end)}")
    return value


def _between_seeds(denoiser: Any, sampler: Any, seeds: list[int], label: int | None, shape: Any, way: Interpolation):
    r"""What makes the frames (frames, *S); the ends are what sample.py makes first of these seeds."""
    from scoregen.commands.hooks import SAMPLE_STREAM
    from scoregen.metrics import constant_speed_path
    from scoregen.metrics.smoothness import path_images
    from scoregen.rng import generators, randn
    from scoregen.samplers.base import state_options
    from scoregen.samplers.latent import FromNoise

    options = state_options(denoiser)
    a, b = (randn((1, *shape), generators(seed, SAMPLE_STREAM, 0, [0]), **options) for seed in seeds)
    try:
        generate = FromNoise(denoiser, sampler, label)
    except (ValueError, TypeError) as error:
        raise UserError(f"sampler: {error}") from error

    def make():
        if way.constant_speed:
            _, images = constant_speed_path(generate, a, b, points=way.frames, probes=way.frames, blend=way.blend)
        else:
            images = path_images(generate, a, b, way.frames, way.blend)
        return images[:, 0]

    return make


def _between_images(denoiser: Any, sampler: Any, files: list[str], label: int | None, shape: Any, way: Interpolation):
    r"""What makes the frames (frames, *S); the ends are the images as far as the flow brings them back."""
    import torch

    from scoregen.samplers import interpolate
    from scoregen.samplers.base import state_options

    if way.constant_speed:
        raise UserError("interpolation.constant_speed: must be false for two images, got true; it is for two seeds.")
    options = state_options(denoiser)
    a, b = (_read(Path(file), shape).to(**options) for file in files)
    labels = None if label is None else torch.full((1,), label, device=options["device"])
    return lambda: interpolate(denoiser, a, b, steps=way.frames, label=labels, blend=way.blend)[:, 0]


def _read(file: Path, shape: tuple[int, ...]):
    r"""An image (1, *S) in [0, 1], or an array in the units of the data, of the shape of the model."""
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError

    try:
        if file.suffix == ".npy":
            x = torch.from_numpy(np.load(file)).float()
        else:
            with Image.open(file) as image:
                pixels = np.array(image.convert("L" if shape[0] == 1 else "RGB"), dtype=np.float32) / 255
            x = torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    except (UnidentifiedImageError, ValueError) as error:
        raise UserError(f"interpolate: '{file}' is not a readable image or .npy array ({error}).") from error
    if tuple(x.shape) != tuple(shape):
        raise UserError(f"interpolate: '{file}' has shape {tuple(x.shape)}, the model makes {tuple(shape)}; resize it.")
    return x[None]


def _write(frames: Any, way: Interpolation, out: Path) -> None:
    r"""frames (rows, frames, *S): the array, and for images the strip and the GIF, forth and back."""
    import numpy as np

    from scoregen.pictures import is_image, save_grid

    values = frames.float().cpu().numpy()
    print(write_atomically(out / "frames.npz", lambda file: np.savez(file, frames=values)))
    if is_image(frames[0]):
        print(save_grid(frames.flatten(0, 1), out / "strip.png", columns=frames.shape[1]))
        print(save_gif(frames.transpose(0, 1), out / "path.gif", way.duration))


def save_gif(frames: Any, path: Path, duration: float) -> Path:
    r"""Writes an endless GIF, forth and back, of frames (frames, rows, C, H, W) in [0, 1]; rows side by side."""
    from PIL import Image

    from scoregen.pictures import to_bytes

    pictures = []
    for frame in frames:
        row = to_bytes(frame).permute(2, 0, 3, 1).flatten(1, 2).numpy()  # (H, rows W, C)
        picture = Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row)
        factor = max(1, 256 // picture.height)
        pictures.append(picture.resize([side * factor for side in picture.size], Image.Resampling.NEAREST))
    walk = pictures + pictures[-2:0:-1]
    options = {"save_all": True, "append_images": walk[1:], "duration": round(1000 * duration), "loop": 0}
    return write_atomically(path, lambda file: walk[0].save(file, format="GIF", **options))
