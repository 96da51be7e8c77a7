r"""Speckled images, and the job that restores them."""

from pathlib import Path

import numpy as np
import torch
from tiny import job

from scoregen.samplers import speckle


def restore(checkpoint: Path, out: Path, *overrides: str) -> Path:
    return job("restore", f"checkpoint={checkpoint}", *overrides).run(out)


def intensities(*shape: int, seed: int = 0) -> np.ndarray:
    x = torch.from_numpy(np.random.default_rng(seed).uniform(0.2, 0.6, shape)).float()
    return speckle(x, 16, torch.Generator().manual_seed(seed)).clamp(0.01, 1).numpy()


def stack(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)
