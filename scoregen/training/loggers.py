r"""Loggers: metrics.jsonl is the source of truth; wandb and TensorBoard mirror it."""

import json
import netrc
import os
import secrets
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlparse

from scoregen.checks import one_of
from scoregen.config import Config
from scoregen.parallel import say_once
from scoregen.storage import write_text


class Logger(ABC):
    r"""Where numbers and pictures go."""

    def open(self, folder: Path, config: Config, step: int) -> None:
        r"""Called before the first step: start in a run folder, or continue there after `step` steps."""
        return

    @abstractmethod
    def log(self, step: int, values: dict[str, float]) -> None:
        r"""Called with numbers of a step: write them."""

    def picture(self, step: int, name: str, path: Path) -> None:
        r"""Called when a picture was written to `path`: show it."""
        return

    def close(self) -> None:
        r"""Called at the end, also of a run that failed: flush and close."""
        return


class NoLogger(Logger):
    r"""Logs nothing; metrics.jsonl is written all the same."""

    def log(self, step: int, values: dict[str, float]) -> None:
        pass


class JSONLines(Logger):
    r"""One JSON object a line in metrics.jsonl; lines after the step of a resumed checkpoint are dropped."""

    def open(self, folder: Path, config: Config, step: int) -> None:
        path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(folder) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    r"""The lines of a run's metrics.jsonl; damaged ones are left out, and that is said on standard error."""
    path, lines = folder / "metrics.jsonl", []
    *whole, torn = path.read_text(errors="replace").split("\n") if path.exists() else [""]
    for number, text in enumerate(whole, start=1):
        line = _parsed(text)
        if line is None:
            say_once(f"metrics.jsonl: line {number} of '{path}' is damaged and left out.")
        else:
            lines.append(line)
    last = _parsed(torn)  # without a line end where the run was killed while it wrote
    return lines if last is None else [*lines, last]


def _parsed(text: str) -> dict[str, float] | None:
    r"""A line of the log, None for a damaged one."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None


_MODES = ("online", "offline", "disabled")


class WandB(Logger):
    r"""Weights & Biases: online with a key, offline without one or where it does not answer.

    The run keeps its id in wandb_id.txt of the run folder, so that a resumed run continues it.

    Args:
        project: project name.
        entity: team, or None.
        mode: "online", "offline", "disabled", or None: online where a key is set (or WANDB_MODE says so), else offline.
    """

    def __init__(self, project: str = "scoregen", entity: str | None = None, mode: str | None = None) -> None:
        if mode is not None:
            one_of(_MODES, mode=mode)
        self.project, self.entity, self.mode = project, entity, mode

    def open(self, folder: Path, config: Config, step: int) -> None:
        import wandb

        mode = self.mode or os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        id_file = folder / "wandb_id.txt"
        run_id = id_file.read_text().strip() if id_file.exists() else secrets.token_hex(4)
        write_text(id_file, run_id)
        try:
            self._run = self._start(mode, run_id, folder, config)
        except wandb.errors.CommError as error:
            if mode != "online":
                raise
            print(f"wandb: no answer ({error}). The run is tracked offline; `wandb sync` uploads it later.")
            self._run = self._start("offline", run_id, folder, config)

    def _start(self, mode: str, run_id: str, folder: Path, config: Config) -> Any:
        import wandb

        return wandb.init(
            project=self.project,
            entity=self.entity,
            mode=cast(Literal["online", "offline", "disabled"], mode),
            id=run_id,
            resume="allow" if mode == "online" else None,
            dir=str(folder),
            name=folder.name,
            config=dict(config),
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

    def open(self, folder: Path, config: Config, step: int) -> None:
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
