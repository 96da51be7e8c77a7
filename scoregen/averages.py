r"""Averages of the weights of any length, put together after the training.

Two averages are tracked, and snapshots of both are kept. Another one is their combination that is nearest to it
(scoregen/average_lengths.py).

    averages/step_00000100.safetensors    of a run: both averages at that step, in half precision
    powers.safetensors                    of a checkpoint: the same, in the precision of the weights

Reference: Karras et al. (2024), arXiv 2312.02696, section 3.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoregen.average_lengths import coefficients
from scoregen.checkpoint_files import read_state
from scoregen.errors import UserError
from scoregen.failures import translated
from scoregen.parallel import say_once
from scoregen.storage import write_atomically

LENGTHS = (0.05, 0.10)  # tracked in a training
FOLDER, POWERS = "averages", "powers.safetensors"
_ROUGH = 0.01  # distance of an average, as `coefficients` has it
_FORMAT, _FACTS = "scoregen-averages-1", "averages"
_HALF = (6.2e-5, 6.0e4)  # magnitudes that half precision holds with all of its digits


@dataclass(frozen=True)
class Moment:
    r"""The averages at one step.

    Args:
        step: of the training. images: seen until then.
        values: by length and name.
    """

    step: int
    images: int
    values: Mapping[float, Mapping[str, Tensor]]


def write(path: Path, moment: Moment, half: bool = False) -> None:
    r"""Writes the averages of one step, whole or not at all.

    Args:
        path: of the file. moment: what is written.
        half: whether tensors are rounded to half precision; those with magnitudes that it does not hold are not.

    Raises:
        OSError, UserError: it cannot be written.
    """
    from safetensors.torch import save

    tensors = {
        f"{length:g}:{name}": _halved(value) if half else value.detach().contiguous().cpu()
        for length, values in moment.values.items()
        for name, value in values.items()
    }
    facts: dict[str, Any] = {"format": _FORMAT, "step": moment.step, "images": moment.images}
    # one entry: safetensors writes several in any order, and the same averages should be the same bytes
    content = save(tensors, {_FACTS: json.dumps(facts | {"sha256": _digest(tensors, facts)})})
    with translated(f"checkpoint: '{path}' cannot be written", "Mend this, then resume with trainer.resume=auto."):
        write_atomically(path, lambda file: file.write(content))


def _halved(value: Tensor) -> Tensor:
    value = value.detach().contiguous().cpu()
    sizes = value[value != 0].abs()
    low, high = _HALF
    return value if sizes.numel() and not low <= sizes.mean() <= sizes.max() <= high else value.half()


def _facts(file: Any) -> dict[str, Any]:
    r"""What is said of the averages in the header of their file."""
    found = json.loads((file.metadata() or {}).get(_FACTS, "{}"))
    if not isinstance(found, dict) or not all(type(found.get(key)) is int for key in ("step", "images")):
        raise ValueError("it holds no averages")
    return found


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    found = hashlib.sha256(json.dumps({key: facts.get(key) for key in ("format", "step", "images")}).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # the bytes, without a copy
    return found.hexdigest()


def read(path: Path) -> Moment:
    r"""The averages of a file, read and compared with its digest.

    Raises:
        UserError: it is missing, damaged or of another kind.
    """
    from safetensors import safe_open

    with _read_safely(path), safe_open(path, "pt") as file:
        facts = _facts(file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        if facts.get("format") != _FORMAT or facts.get("sha256") != _digest(tensors, facts):
            raise ValueError("its content is not what was written")
        values: dict[float, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            length, _, own = name.partition(":")
            values.setdefault(float(length), {})[own] = tensor
        return Moment(facts["step"], facts["images"], values)


@contextmanager
def _read_safely(path: Path) -> Iterator[None]:
    remedy = "Use an earlier checkpoint." if path.name == POWERS else "Delete it: the others will do, less exactly."
    what = f"checkpoint: '{path}' is missing or damaged"
    with translated(what, remedy):
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{what} ({error}). {remedy}") from error


def snapshot_steps(steps: int, count: int | None) -> frozenset[int]:
    r"""The steps after which snapshots are kept, evenly spaced, the last one included; none for None."""
    return frozenset() if count is None else frozenset(max(1, round((k + 1) * steps / count)) for k in range(count))


def path_of(run: Path, step: int) -> Path:
    r"""The snapshot of a step."""
    return run / FOLDER / f"step_{step:08d}.safetensors"


def snapshots(run: Path) -> dict[int, Path]:
    r"""The snapshots of a run by step."""
    found = {path.stem.removeprefix("step_"): path for path in (run / FOLDER).glob("step_*.safetensors")}
    return {int(step): path for step, path in sorted(found.items()) if step.isdigit()}


def sources(checkpoint: Path) -> list[Path]:
    r"""The files from which averages at the step of a checkpoint are made: its own, and earlier snapshots of its run.

    Raises:
        UserError: it was trained without.
    """
    if not (own := checkpoint / POWERS).is_file():
        raise UserError(
            f"weights: '{checkpoint}' has no averages of other lengths: its run kept none. Train with "
            "trainer.ema_snapshots=32, or take the average that it has, weights=ema."
        )
    run, step = checkpoint.resolve().parent.parent, read_state(checkpoint)["step"]
    return [*(path for at, path in snapshots(run).items() if at < step), own]


def combined(checkpoint: Path, length: float) -> tuple[dict[str, Tensor], float]:
    r"""The average of a length at the step of a checkpoint, in its precision, and its distance.

    Raises:
        UserError: a file is missing or damaged, or none but the two tracked lengths can be had.
    """
    files = sources(checkpoint)
    if len(files) < 2 and length not in LENGTHS:
        raise UserError(
            f"weights: averages of other lengths than .05 and .10 need the snapshots of the run, and "
            f"'{checkpoint.resolve().parent.parent / FOLDER}' has no earlier ones, got {length:g}. Put it there."
        )
    moments = [read(path) for path in files]
    if (own := moments[-1]).values.get(length) is not None:
        return dict(own.values[length]), 0.0
    places = [(moment, one) for moment in moments for one in moment.values]
    times, lengths = [m.images for m, _ in places], [one for _, one in places]
    x, distance = coefficients(times, lengths, own.images, length)
    first = own.values[LENGTHS[0]]
    total = {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in first.items()}
    for share, (moment, one) in zip(x.tolist(), places, strict=True):
        values = moment.values[one]
        for name, value in total.items():
            if values.get(name) is None or values[name].shape != value.shape:
                raise UserError(f"checkpoint: the averages of '{checkpoint}' are of several models: '{name}' differs.")
            value.add_(values[name], alpha=share)
    return {name: value.to(first[name].dtype) for name, value in total.items()}, distance


def load(model: nn.Module, checkpoint: Path, length: float) -> None:
    r"""Puts the average of a length in place of the weights of a model; says where it is a rough one.

    Raises:
        UserError: it cannot be had, or does not fit the model.
    """
    found, distance = combined(checkpoint, length)
    own = model.state_dict()
    for name, value in found.items():
        if name not in own or own[name].shape != value.shape:
            raise UserError(f"checkpoint: the averages of '{checkpoint}' do not fit the model: '{name}'.")
    model.load_state_dict(found, strict=False)
    if distance > _ROUGH:
        off = f"off by {100 * distance:.1f} % of a random walk"
        say_once(f"weights: the average of length {length:g} is a rough one, {off}. Keep more snapshots.")


def digest_of(checkpoint: Path, length: float) -> str:
    r"""The digest of an average: of its length, and of the digests in the files that it is made of."""
    from safetensors import safe_open

    found = hashlib.sha256(f"{length:g}".encode())
    for path in sources(checkpoint):
        with _read_safely(path), safe_open(path, "pt") as file:
            found.update(str(_facts(file).get("sha256")).encode())
    return found.hexdigest()
