r"""Loggers: metrics.jsonl is the source of truth; wandb and TensorBoard mirror it."""

import json
import netrc
import os
import secrets
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse


class Logger(ABC):
    r"""Where numbers and pictures go."""

    def open(self, folder: Path, config: dict[str, Any], step: int) -> None:
        r"""Starts in a run folder, or continues there after `step` steps."""
        return

    @abstractmethod
    def log(self, step: int, values: dict[str, float]) -> None:
        r"""Numbers at a step."""

    def picture(self, step: int, name: str, path: Path) -> None:
        r"""A picture that was written to `path`."""
        return

    def close(self) -> None:
        r"""Flushes and ends."""
        return


class NoLogger(Logger):
    r"""Nothing but metrics.jsonl."""

    def log(self, step: int, values: dict[str, float]) -> None:
        pass


class JSONLines(Logger):
    r"""One JSON object a line in metrics.jsonl; lines after the step of a resumed checkpoint are dropped."""

    def open(self, folder: Path, config: dict[str, Any], step: int) -> None:
        path = folder / "metrics.jsonl"
        kept = [line for line in _lines(path) if line["step"] <= step]
        partial = path.with_name(".metrics.partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(partial, path)
        self._file = path.open("a")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    r"""The lines of a run's metrics.jsonl."""
    return _lines(folder / "metrics.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:  # the torn last line of a killed run
            break
    return lines


class WandB(Logger):
    r"""Weights & Biases: online with a key, offline without one, never waiting for an answer.

    The run keeps its id in wandb_id.txt of the run folder, so that a resumed run continues it.

    Args:
        project: project name.
        entity: team, or None.
        mode: "online", "offline", "disabled", or None: online where a key is set (or WANDB_MODE says so), else offline.
    """

    def __init__(self, project: str = "scoregen", entity: str | None = None, mode: str | None = None) -> None:
        if mode not in (None, "online", "offline", "disabled"):
            raise ValueError(f"mode must be online, offline, disabled or null, got mode='{mode}'.")
        self.project, self.entity, self.mode = project, entity, mode

    def open(self, folder: Path, config: dict[str, Any], step: int) -> None:
        import wandb

        mode = self.mode or os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        id_file = folder / "wandb_id.txt"
        run_id = id_file.read_text().strip() if id_file.exists() else secrets.token_hex(4)
        id_file.write_text(run_id)
        try:
            self._run = self._start(mode, run_id, folder, config)
        except wandb.errors.CommError as error:
            if mode != "online":
                raise
            print(f"wandb: no answer ({error}); the run is tracked offline, `wandb sync` uploads it later.")
            self._run = self._start("offline", run_id, folder, config)

    def _start(self, mode: str, run_id: str, folder: Path, config: dict[str, Any]) -> Any:
        import wandb

        return wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,  # type: ignore[arg-type]
            id=run_id,
            resume="allow" if mode == "online" else None,
            dir=str(folder),
            name=folder.name,
            config=config,
            settings=wandb.Settings(init_timeout=20, silent=True),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def picture(self, step: int, name: str, path: Path) -> None:
        import wandb

        self._run.log({name: wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        self._run.finish()


def _has_key() -> bool:
    r"""Whether credentials of Weights & Biases are there: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class TensorBoard(Logger):
    r"""TensorBoard event files in the run folder's tensorboard/.

    Raises:
        ValueError: the extra is not installed.
    """

    def __init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError("logger=tensorboard needs the extra: pip install 'scoregen[tensorboard]'.")

    def open(self, folder: Path, config: dict[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        import numpy
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image(name, numpy.array(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()
