r"""The trackers of Accelerate as a logger: TensorBoard, MLflow, Comet, ClearML, and those that a user registers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scoregen.checks import one_of
from scoregen.config import Config
from scoregen.storage import flatten
from scoregen.training.loggers import Logger


class Trackers(Logger):
    r"""Mirrors metrics.jsonl into trackers of Accelerate; what has a folder of its own gets one in the run folder.

    Args:
        names: names of trackers, as Accelerate calls them, or as they are registered by
            `accelerate.tracking.register_tracker_class`.
        project: the project, experiment or run, as the tracker calls it.
        options: a mapping of further arguments for each name, as `init_kwargs` of `Accelerator.init_trackers`.

    Raises:
        ValueError: an unknown tracker, one that is not installed, or options of one that is not used.
    """

    def __init__(
        self,
        names: Sequence[str] = ("tensorboard",),
        project: str = "scoregen",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.names, self.project, self.options = tuple(names), project, dict(options or {})
        known = _classes()
        for name in self.names:
            one_of(sorted(known), name=name)
            if not _installed(name):
                raise ValueError(f"names: '{name}' is not installed. Install it: pip install {name.replace('_', '-')}.")
        for name in self.options:
            one_of(self.names, options=name)

    def open(self, folder: Path, config: Config, step: int) -> None:
        settings = {name: _plain(value) for name, value in flatten(config)}
        self._trackers: list[Any] = []
        for name in self.names:
            kind, given = _classes()[name], {**_GOES_ON.get(name, _nothing)(step), **self.options.get(name, {})}
            places = [str(folder / "trackers")] if kind.requires_logging_directory else []
            tracker = kind(self.project, *places, **given)
            tracker.start()
            self._trackers.append(tracker)
            tracker.store_init_configuration(settings)

    def log(self, step: int, values: dict[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(values, step=step)

    def picture(self, step: int, name: str, path: Path) -> None:
        import numpy
        from PIL import Image

        with Image.open(path) as image:
            pixels = numpy.array(image.convert("RGB"))
        for tracker in self._trackers:
            if hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({name: pixels[None]}, step=step, **layout)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.finish()


def _classes() -> dict[str, Any]:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    return dict(LOGGER_TYPE_TO_CLASS)


def _installed(name: str) -> bool:
    r"""Whether a tracker can be used; those that a user registers are."""
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    return name not in [str(kind) for kind in LoggerType] or name in [str(kind) for kind in get_available_trackers()]


def _nothing(step: int) -> dict[str, Any]:
    return {}


def _purge(step: int) -> dict[str, Any]:
    return {"purge_step": step + 1}


_GOES_ON = {"tensorboard": _purge}  # what a run that goes on tells a tracker, so that no step is there twice


def _plain(value: Any) -> int | float | str | bool:
    return value if isinstance(value, int | float | str | bool) else str(value)
