r"""Smoothness: how evenly images change along paths between two noises."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from scoregen.checks import at_least
from scoregen.config import Node
from scoregen.data import Dataset, Source
from scoregen.data.parts import Name
from scoregen.description import built_option, node_option, plain
from scoregen.errors import UserError
from scoregen.jobs.calls import network_calls
from scoregen.jobs.conditioning import announced, class_number, find_checkpoint, known_of, require_shape
from scoregen.jobs.evaluate import extractor_for
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Plan, Weights, origin
from scoregen.metrics import FeatureExtractor
from scoregen.samplers import Sampler


@dataclass(frozen=True, kw_only=True)
class Smoothness(FastJob):
    r"""Measures a generator's smoothness; writes smoothness.json and strips; keys as in conf/smoothness.yaml.

    Args:
        checkpoint: a checkpoint, or a run folder (its last one). weights: "ema", "model" or "ema:LENGTH".
        sampler: deterministic.
        data: its training part gives distances their scale, its test part is encoded and decoded.
        features: in which perceptual distances are taken.
        pairs: number of pairs of noises, >= 2; pair i depends only on the seed and i.
        points: images on a path, ends included, >= 3.
        batch_size: pairs a process works on at once; does not change the numbers. seed: seed of the noises.
        label: one class for all, by number or name, or None.
        inversion: held-out images encoded and decoded; 0 for none.
    """

    known: ClassVar = ("smoothness.json", "strips.png")
    checkpoint: str | None = None
    weights: Weights = "ema"
    sampler: Sampler = field(default_factory=built_option("sampler", "ddim"))
    data: Source
    features: Node = field(default_factory=node_option("features", "pixels"))
    pairs: int = 500
    points: int = 11
    batch_size: int = 50
    seed: int = 0
    label: int | str | None = None
    inversion: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, pairs=self.pairs)
        at_least(3, points=self.points)
        at_least(1, batch_size=self.batch_size)
        at_least(0, inversion=self.inversion)

    def plan(self, out: Path) -> Plan:
        from scoregen.samplers.from_noise import FromNoise

        checkpoint = find_checkpoint(self.checkpoint)
        extractor = extractor_for(self)
        model: Any = self.loaded(checkpoint, self.weights)
        require_shape(checkpoint, self.data)
        label = self._class(model, checkpoint)
        calls = network_calls(self.sampler, model.sde)
        try:
            generate = FromNoise(model, self.sampler, label)
        except (ValueError, TypeError) as error:
            raise UserError(f"sampler: {error}") from error
        facts: dict[str, Any] = {"checkpoint": str(checkpoint), "weights": self.weights, "data": self.data.name}
        facts |= {"sampler": plain(self.sampler), "network_calls": calls, "label": self.label}

        def work() -> None:
            self._measure(generate, model, extractor, facts, out)

        if self.inversion and len(self.data.shape) == 3 and self.data.part("test") is None:
            raise UserError("inversion: needs a test part of the data. Give inversion=0, or data.test=auto.")
        only: Name = "test" if self.data.part("train") is None else "train"
        used = f"data: {self.data.name}; reference: {self.data.told(only)}"
        used += f"; encoded and decoded: {self.data.told('test', self.inversion)}" if self.inversion else ""
        lines = [announced(checkpoint, self.weights), used, f"out: {out}"]
        return Plan(work, lines, origin(checkpoint, self.weights))

    def _class(self, model: Any, checkpoint: Path) -> int | None:
        r"""The number of the class of `label`."""
        if self.label is None:
            return None
        if not model.num_classes:
            raise UserError(f"label: must be null for an unconditional model, got {self.label}.")
        return class_number(self.label, model.num_classes, known_of(checkpoint).classes)

    def _measure(
        self, generate: Any, model: Any, extractor: FeatureExtractor, facts: dict[str, Any], out: Path
    ) -> None:
        from scoregen import parallel
        from scoregen.metrics import istd

        options: dict[str, Any] = {key: getattr(self, key) for key in ("pairs", "points", "seed", "batch_size")}
        options["data_range"] = self.data.range
        options["shape"] = model.sde.chart.shape_of(self.data.shape)
        try:
            found = istd(generate, self._reference(), extractor=extractor, device=parallel.device(), **options)
        except ValueError as error:
            raise error if isinstance(error, UserError) else UserError(f"smoothness: {error}") from error
        if parallel.rank() == 0:
            self._report(found, facts, self._inversion(model), out)
            self._draw(generate, out)

    def _reference(self) -> Dataset:
        r"""The training part, or the only part of the data."""
        return self.data.test if self.data.part("train") is None else self.data.train

    def _inversion(self, model: Any) -> list[Any]:
        r"""Reconstruction errors of held-out images, encoded and decoded with their labels."""
        from scoregen.metrics import reconstruction_sweep
        from scoregen.pictures import UNIT, has_ends

        if not self.inversion or len(self.data.shape) != 3:
            return []
        x, label = self.data.test.in_units(slice(self.inversion))
        device = next(model.parameters()).device
        label = None if label is None or model.num_classes is None else label.to(device)
        found = self.data.range
        return reconstruction_sweep(
            model, x.to(device), label, found if found is not None and has_ends(found) else UNIT
        )

    def _report(self, found: Any, facts: dict[str, Any], inversion: list[Any], out: Path) -> None:
        from scoregen.metrics import Report
        from scoregen.metrics.reconstruction import sweep_table

        details = {"inversion": [asdict(r) for r in inversion]}
        report = Report(found.numbers(), found.protocol | facts, details)
        print(report.table())
        if inversion:
            print(f"\nencoded and decoded, held-out images:\n\n{sweep_table(inversion)}")
        print(f"\n{report.write(out / 'smoothness.json')}")

    def _draw(self, generate: Any, out: Path) -> None:
        r"""Strips of the first pairs at equidistant weights, and the same paths at constant speed."""
        from scoregen.metrics.smoothness import constant_speed_path, noise_pairs, path_images
        from scoregen.pictures import save_grid

        shape = self.data.shape
        if len(shape) != 3 or shape[0] not in (1, 3):
            return
        device = next(generate.denoiser.parameters()).device
        latent = generate.denoiser.sde.chart.shape_of(shape)
        a, b = noise_pairs(min(8, self.pairs), latent, self.seed, device=device)
        even = path_images(generate, a, b, self.points)
        _, steady = constant_speed_path(generate, a, b, points=self.points, probes=self.points)
        for name, images in (("strips.png", even), ("strips_constant_speed.png", steady)):
            print(save_grid(images.transpose(0, 1).flatten(0, 1), out / name, self.points, data_range=self.data.range))

    def result(self, out: Path) -> float | None:
        from scoregen.jobs.evaluate import frechet_of

        return frechet_of(out / "smoothness.json")  # the first number, the ISTD
