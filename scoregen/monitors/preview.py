r"""Pictures during training, and the report of a run."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from scoregen.checks import at_least
from scoregen.data import Source
from scoregen.data.damage import Tolerant
from scoregen.models import AbstractDenoiser
from scoregen.parallel import rank
from scoregen.pictures import is_image, save_curve, save_grid
from scoregen.report import write_report
from scoregen.rng import Stream, generators
from scoregen.samplers import Sampler
from scoregen.sde import SDE
from scoregen.training import Hook, Moment
from scoregen.training.loggers import read_metrics

_FRAMES = 10


class Preview(Hook):
    r"""A grid of samples of fixed seeds, with real data, a denoising trajectory, the loss curve and report.html.

    Args:
        sampler: makes the samples.
        source: gives the real data.
        every: steps between previews.
        config: of the run, shown in the report.
        n: samples.
        seed: seed of the samples.

    Raises:
        ValueError: values out of range.
    """

    def __init__(
        self,
        sampler: Sampler,
        source: Source,
        every: int,
        *,
        config: Mapping[str, Any] | None = None,
        n: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(every)
        at_least(1, n=n)
        self.sampler, self.source, self.config, self.n, self.seed = sampler, source, config, n, seed

    def samplers(self, sde: SDE) -> list[Sampler]:
        r"""What it samples with."""
        return [self.sampler]

    def __call__(self, moment: Moment) -> None:
        if rank() != 0:
            return
        folder, denoiser = moment.folder, cast(AbstractDenoiser, moment.model)
        label = cycled_labels(denoiser, self.n)
        columns = 10 if label is not None else None
        frames: list[Tensor] = []
        samples = self.sampler(
            denoiser,
            (self.n, *self.source.shape),
            label=label,
            generator=generators(self.seed, Stream.PREVIEW, 0, range(self.n)),
            callback=lambda i, s, u, denoised: frames.append(u[:8].detach().cpu()),
        )
        span = self.source.range
        path = save_grid(samples, folder / "samples" / f"step_{moment.step:08d}.png", columns, data_range=span)
        moment.picture("samples", path)
        save_grid(samples, folder / "samples.png", columns, "samples", data_range=span)
        save_grid(self._real(label), folder / "real.png", columns, "data", data_range=span)
        if is_image(samples):
            save_grid(trajectory(denoiser.sde, frames), folder / "trajectory.png", _FRAMES, data_range=span)
        self._report(moment)

    def _real(self, label: Tensor | None) -> Tensor:
        r"""Held-out data where there are some, with the classes of the samples beside them where there are enough."""
        test = self.source.part("test") or self.source.part("validation") or self.source.train
        test = Tolerant(test, 1.0) if self.source.max_corrupt else test  # pictures to look at: no number is reported
        if label is None or test.label is None:
            return test.in_units(slice(self.n))[0]
        wanted: list[int] = []
        for k in label.tolist():
            matches = [i for i in (test.label == k).nonzero().flatten()[: self.n].tolist() if i not in wanted]
            if not matches:
                return test.in_units(slice(self.n))[0]
            wanted.append(matches[0])
        return test.in_units(wanted)[0]

    def _report(self, moment: Moment) -> None:
        import yaml

        folder, lines = moment.folder, [line for line in read_metrics(moment.folder) if "loss" in line]
        if lines:
            save_curve([line["step"] for line in lines], [line["loss"] for line in lines], folder / "loss.png", "loss")
        pair = [(folder / "samples.png", "Samples (averaged weights)"), (folder / "real.png", "Held-out data")]
        sections = [
            ("Samples beside data", pair),
            ("From noise to data", [(folder / "trajectory.png", "The state over its noise ratio, left to right")]),
            ("Loss", [(folder / "loss.png", "Training loss, mean between log steps")]),
        ]
        title, config = f"{self.source.name}: {folder.name}", yaml.safe_dump(dict(self.config or {}))
        write_report(folder / "report.html", title, sections, self._numbers(moment, lines), config)

    def _numbers(self, moment: Moment, lines: list[dict[str, float]]) -> dict[str, object]:
        steps = f", {self.sampler.steps} steps" if hasattr(self.sampler, "steps") else ""
        numbers: dict[str, object] = {
            "step": moment.step,
            "data": self.source.name,
            "process": type(moment.model.sde).__name__,
            "parameters": f"{sum(p.numel() for p in moment.model.parameters()):,}",
            "sampler": f"{type(self.sampler).__name__}{steps}",
        }
        if lines:
            numbers["loss"] = f"{lines[-1]['loss']:.4f}"
            numbers["images a second"] = f"{lines[-1]['images_per_second']:.0f}"
        return numbers


def cycled_labels(model: nn.Module, n: int) -> Tensor | None:
    r"""0, 1, ..., K - 1, 0, 1, ... for a conditional model, else None."""
    classes: int | None = getattr(model, "num_classes", None)
    if not classes:
        return None
    return torch.arange(n, device=next(model.parameters()).device) % classes


def trajectory(sde: SDE, frames: list[Tensor]) -> Tensor:
    r"""Frames of u over a run as images: scaled to the range of data, early frames to their own spread."""
    chosen = [frames[round(i * (len(frames) - 1) / (_FRAMES - 1))] for i in range(_FRAMES)]
    spread = chosen[-1].std().item()
    shown = [sde.from_chart(u * min(1.0, spread / u.std().item())) for u in chosen]
    return torch.stack(shown, dim=1).flatten(0, 1)
