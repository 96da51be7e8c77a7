r"""A sweep of evaluations: several samplers, each at several numbers of network calls, from one checkpoint."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from scoregen.average_lengths import check_length, length_of
from scoregen.checks import at_least
from scoregen.config import build
from scoregen.description import option
from scoregen.errors import UserError
from scoregen.interruption import end_if_asked
from scoregen.jobs.calls import network_calls
from scoregen.jobs.conditioning import find_checkpoint, require_shape
from scoregen.jobs.evaluate import extractor_for, measured
from scoregen.jobs.job import Job, Plan, origin
from scoregen.jobs.measuring import LEAST, Measuring
from scoregen.jobs.sample import Sample
from scoregen.metrics import FeatureExtractor
from scoregen.storage import write_json


@dataclass(frozen=True)
class One:
    r"""One evaluation of a sweep: a sampler, its node, steps and network calls, and the weights."""

    name: str
    node: dict[str, Any]
    steps: int
    calls: int
    weights: str

    @property
    def title(self) -> str:
        r"""The name of its line in table and figure."""
        return self.name if length_of(self.weights) is None else f"{self.name}, {self.weights}"

    def place(self, out: Path) -> Path:
        r"""Its folder."""
        average = "" if length_of(self.weights) is None else f"_{self.weights.replace(':', '_')}"
        return out / f"{self.name}{average}_{self.calls:03d}_calls"


@dataclass(frozen=True, kw_only=True)
class Sweep(Measuring):
    r"""Evaluates samplers over numbers of network calls; keys as in conf/sweep.yaml.

    Args:
        checkpoint: a checkpoint, or a run folder (its last one). weights: "ema", "model" or "ema:LENGTH".
        samplers: options of the group sampler.
        ema: lengths of averages, each with every sampler, in place of weights; of a run with trainer.ema_snapshots.
        calls: numbers of network calls an image, each the most that a sampler may make.
        n, batch_size, seed, label, guidance, autoguidance, clamp, precision: as in the job sample.
        data, features, metrics, cache: as in the job evaluate.
    """

    known: ClassVar = ("sweep.json",)
    free: ClassVar = (*Job.free, "cache", "samplers", "calls", "ema")
    samplers: list[str] = field(default_factory=lambda: ["velocity_abm", "heun", "ddim"])
    calls: list[int] = field(default_factory=lambda: [8, 18, 35])
    ema: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(LEAST, n=self.n)
        for name in ("samplers", "calls"):
            if not getattr(self, name):
                raise UserError(f"{name}: must not be an empty list.")
        for calls in self.calls:
            at_least(1, calls=calls)
        for length in self.ema:
            check_length(length, "ema")
        if self.ema:
            self.refuse_ignored({"weights": "are chosen by ema"})

    def plan(self, out: Path) -> Plan:
        from scoregen.loading import describe

        checkpoint = find_checkpoint(self.checkpoint)
        extractor = extractor_for(self)
        require_shape(checkpoint, self.data)
        sde = build(describe(checkpoint)["sde"], trust=self.trust, where="sde")
        plans = [(name, *plan) for name in self.samplers for plan in plans_of(name, self.calls, sde)]
        points = [One(*plan, weights) for weights in self._weights() for plan in plans]
        for one in points:
            self._sample(one).plan(one.place(out) / "samples")
        lines = [self.measured_against()]
        lines += [f"{one.title}: {one.steps} steps, {one.calls} calls" for one in points]
        facts = origin(checkpoint, self.weights)  # with `ema`, which may grow, those of the run's own average
        return Plan(lambda: self._measure(points, extractor, out), [*lines, f"out: {out}"], facts)

    def _weights(self) -> list[str]:
        return [f"ema:{length:g}" for length in self.ema] or [self.weights]

    def _sample(self, one: One) -> Sample:
        return self.drawn_by(build(one.node, where="samplers"), one.weights)

    def _measure(self, plans: list[One], extractor: FeatureExtractor, out: Path) -> None:
        from scoregen.metrics.sweep import Point, save_figure, table
        from scoregen.parallel import rank

        points, reports = [], []
        for one in plans:
            end_if_asked()
            folder = one.place(out)
            report = measured(self, self._sample(one).run(folder / "samples"), extractor, folder / "metrics.json")
            reports.append(report.as_dict())
            points.append(Point(one.title, one.steps, one.calls, report[extractor.frechet_name]))
        if rank() == 0:
            write_json(out / "sweep.json", reports)
            print(table(points))
            print(save_figure(points, out / "sweep.png"))

    def result(self, out: Path) -> float | None:
        import json

        return min(float(report["metrics"][0]["value"]) for report in json.loads((out / "sweep.json").read_text()))


def plans_of(name: str, calls: list[int], sde: Any) -> list[tuple[dict[str, Any], int, int]]:
    r"""(node, steps, calls) for each number of calls: the most steps that need no more."""
    node = option("sampler", name)
    if "steps" not in node:
        raise UserError(f"samplers: '{name}' chooses its steps itself and cannot be swept. Leave it out.")
    found = {}
    for most in sorted(calls):
        for steps in range(most, 0, -1):
            plan = {**node, "steps": steps}
            used = network_calls(build(plan, where=f"sampler {name}"), sde)
            if used <= most:
                found[used] = (plan, steps, used)
                break
    if not found:
        raise UserError(f"calls: sampler {name} needs more than {max(calls)} calls for one step. Give larger numbers.")
    return list(found.values())
