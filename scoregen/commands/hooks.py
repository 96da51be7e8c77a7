r"""Pictures during training, and the report of a run."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoregen.data import Source
from scoregen.parallel import rank
from scoregen.pictures import is_image, save_curve, save_grid
from scoregen.report import write_report
from scoregen.rng import generators
from scoregen.samplers import Sampler
from scoregen.sde import SDE
from scoregen.training import Hook, Moment
from scoregen.training.loggers import read_metrics

SAMPLE_STREAM = 11
LABEL_STREAM = 13
_FRAMES = 10


class Preview(Hook):
    r"""A grid of samples of fixed seeds, with real data, a denoising trajectory, the loss curve and report.html.

    Args:
        sampler: makes the samples. source: gives the real data. config: shown in the report.
        every: steps. n: samples.
        seed: of the samples.
    """

    def __init__(
        self, sampler: Sampler, source: Source, config: dict[str, Any], every: int, n: int = 64, seed: int = 0
    ) -> None:
        super().__init__(every)
        if n < 1:
            raise ValueError(f"n must be >= 1, got n={n}.")
        self.sampler, self.source, self.config, self.n, self.seed = sampler, source, config, n, seed

    def samplers(self, sde: SDE) -> list[Sampler]:
        r"""What it samples with."""
        return [self.sampler]

    def __call__(self, moment: Moment) -> None:
        if rank() != 0:
            return
        folder = moment.folder / "samples"
        label = cycled_labels(moment.model, self.n)
        frames: list[Tensor] = []
        samples = self.sampler(
            moment.model,
            (self.n, *self.source.shape),
            label=label,
            generator=generators(self.seed, SAMPLE_STREAM, 0, range(self.n)),
            callback=lambda i, s, u, denoised: frames.append(u[:8].detach().cpu()),
        )
        current = save_grid(samples, folder / f"step_{moment.step:08d}.png", columns=10 if label is not None else None)
        moment.picture("samples", current)
        self._report(moment, samples, frames, label)

    def _report(self, moment: Moment, samples: Tensor, frames: list[Tensor], label: Tensor | None) -> None:
        folder = moment.folder
        columns = 10 if label is not None else None
        save_grid(samples, folder / "samples.png", columns, "samples")
        real = self._real(label)
        save_grid(real, folder / "real.png", columns, "data")
        if is_image(samples):
            save_grid(trajectory(moment.model.sde, frames), folder / "trajectory.png", _FRAMES)
        lines = [line for line in read_metrics(folder) if "loss" in line]
        if lines:
            save_curve([line["step"] for line in lines], [line["loss"] for line in lines], folder / "loss.png", "loss")
        self._write(moment, lines)

    def _real(self, label: Tensor | None) -> Tensor:
        test = self.source.test
        if label is None or test.label is None:
            return test[: self.n][0]
        wanted, used = [], set()
        for k in label.tolist():
            matches = [int(i) for i in (test.label == k).nonzero().flatten()[: self.n] if int(i) not in used]
            if not matches:
                return test[: self.n][0]
            wanted.append(matches[0])
            used.add(matches[0])
        return test[torch.tensor(wanted)][0]

    def _write(self, moment: Moment, lines: list[dict[str, float]]) -> None:
        import yaml

        folder: Path = moment.folder
        numbers: dict[str, object] = {
            "step": moment.step,
            "data": self.source.name,
            "process": type(moment.model.sde).__name__,
        }
        numbers["parameters"] = f"{sum(p.numel() for p in moment.model.parameters()):,}"
        numbers["sampler"] = f"{type(self.sampler).__name__}, {self.sampler.steps} steps"
        if lines:
            numbers["loss"] = f"{lines[-1]['loss']:.4f}"
            numbers["images a second"] = f"{lines[-1]['images_per_second']:.0f}"
        pair = [(folder / "samples.png", "Samples (averaged weights)"), (folder / "real.png", "Held-out data")]
        sections = [
            ("Samples beside data", pair),
            ("From noise to data", [(folder / "trajectory.png", "The state over its noise ratio, left to right")]),
            ("Loss", [(folder / "loss.png", "Training loss, mean between log steps")]),
        ]
        write_report(
            folder / "report.html", f"{self.source.name}: {folder.name}", sections, numbers, yaml.safe_dump(self.config)
        )


def cycled_labels(model: Any, n: int) -> Tensor | None:
    r"""0, 1, ..., K - 1, 0, 1, ... for a conditional model, else None."""
    classes = getattr(model, "num_classes", None)
    if not classes:
        return None
    return torch.arange(n, device=next(model.parameters()).device) % classes


def trajectory(sde: Any, frames: list[Tensor]) -> Tensor:
    r"""Frames of u over a run as images: scaled to the range of data, early frames to their own spread."""
    chosen = [frames[round(i * (len(frames) - 1) / (_FRAMES - 1))] for i in range(_FRAMES)]
    spread = chosen[-1].std().item()
    shown = [sde.from_chart(u * min(1.0, spread / u.std().item())) for u in chosen]
    return torch.stack(shown, dim=1).flatten(0, 1)
