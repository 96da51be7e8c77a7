r"""Tiny runs: the real configurations with everything small, and the commands in this process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scoregen.config import conf_dir
from scoregen.losses import DenoisingScoreMatching
from scoregen.training import Hook, Moment

ROOT = Path(__file__).parents[1]
COMMON = ["trainer.precision=no", "trainer.batch_size=8", "trainer.log_every=1", "preview.every=null"]
TOY = ["data=toy2d", "data.n=100", "model.network.width=8", "model.network.depth=1", *COMMON]
DIGITS = ["data=digits", "model.network.channels=[4]", "model.network.attention=[]", *COMMON]


def compose(*overrides: str, name: str = "train") -> dict[str, Any]:
    r"""The resolved configuration of a command, as Hydra composes it."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(name, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # for ${hydra:runtime.choices.data}
    with open_dict(config):
        config.pop("hydra")
    return OmegaConf.to_container(config, resolve=True)


def job(name: str, *overrides: str, **nodes: Any) -> Any:
    r"""A job as the command line builds it; `nodes` replace nodes of the configuration."""
    from scoregen.config import build

    config = compose(*overrides, name=name) | nodes
    return build({key: value for key, value in config.items() if key != "out"})


def train(folder: Path, *overrides: str, **nodes: Any) -> Path:
    r"""A run of train.py."""
    return job("train", *overrides, **nodes).run(folder)


def sample(checkpoint: Path, out: Path, *overrides: str) -> Path:
    r"""A run of sample.py."""
    return job("sample", f"checkpoint={checkpoint}", *overrides).run(out)


def command(name: str, *argv: str) -> int:
    r"""Exit status of a job's command line, in this process."""
    from scoregen.command_line import run_job

    try:
        run_job(name, [str(argument) for argument in argv])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def refused(name: str, capsys: Any, *argv: str) -> str:
    r"""The one line on standard error of a command that must fail and write nothing."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert command(name, *argv) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    assert sorted(Path.cwd().rglob("*")) == before
    return err


def torchrun(cwd: Path, script: str, *argv: str) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.Popen(
        [*launcher, str(ROOT / script), *argv], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def weights(folder: Path, name: str = "model") -> dict[str, torch.Tensor]:
    r"""Tensors of a file of a run's last checkpoint."""
    from safetensors.torch import load_file

    return load_file(folder / "checkpoints" / "last" / f"{name}.safetensors")


def pixels(out: Path) -> np.ndarray:
    r"""The pictures of a folder of samples, as integers."""
    return np.stack([np.asarray(Image.open(path), dtype=int) for path in sorted((out / "images").iterdir())])


def numbers(folder: Path) -> list[dict[str, float]]:
    r"""metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_second", "eta_seconds")} for line in lines]


class Kill(Hook):
    r"""Ends the process's work at a step, as a kill would."""

    def __call__(self, moment: Moment) -> None:
        if moment.step == self.every:
            raise KeyboardInterrupt


class Fails(Hook):
    r"""A monitor with a mistake."""

    def __call__(self, moment: Moment) -> None:
        raise RuntimeError("no space left for a picture")


class Broken(DenoisingScoreMatching):
    r"""Denoising score matching that gives NaN at some steps."""

    def __init__(self, bad: list[int]) -> None:
        super().__init__()
        self.bad, self.step = bad, 0

    def at(self, step: int, steps: int) -> None:
        self.step = step

    def forward(self, *arguments, **named):
        losses = super().forward(*arguments, **named)
        return losses * float("nan") if self.step in self.bad else losses


class Recorder(DenoisingScoreMatching):
    r"""Denoising score matching that keeps the quantiles of its noise levels, a list a step."""

    seen: dict[int, list[float]]

    def at(self, step: int, steps: int) -> None:
        self.step = step
        Recorder.seen = {} if step == 0 else Recorder.seen

    def forward(self, model, x_0, label=None, generator=None, quantile=None):
        if quantile is not None:  # the check before a run gives none
            Recorder.seen.setdefault(self.step, []).extend(quantile.tolist())
        return super().forward(model, x_0, label, generator, quantile)


def idx(array: np.ndarray) -> bytes:
    r"""An array of bytes in the format of MNIST's files."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def mnist_like(root: Path, name: str, n: int = 20) -> np.ndarray:
    r"""A data set of n images in the layout of torchvision's MNIST; the training images."""
    generator = np.random.default_rng(0)
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    parts = {part: generator.integers(0, 256, (n, 28, 28), dtype=np.uint8) for part in ("train", "t10k")}
    for part, images in parts.items():
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(n, dtype=np.uint8) % 10))
    return parts["train"]


def image_folder(root: Path, modes=("L", "L", "L"), sizes=((6, 4),) * 3, classes=("", "", "")) -> Path:
    r"""A folder of three PNGs; grey ones have the values 0, 17 and 34."""
    for i, (mode, size, part) in enumerate(zip(modes, sizes, classes, strict=True)):
        (root / part).mkdir(exist_ok=True, parents=True)
        Image.new(mode, size, 17 * i if mode == "L" else None).save(root / part / f"{i}.png")
    return root
