r"""A sweep of evaluations: several samplers, each at several numbers of network calls, from one checkpoint."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

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


@dataclass(frozen=True, kw_only=True)
class Sweep(Measuring):
    r"""Evaluates samplers over numbers of network calls; keys as in conf/sweep.yaml.

    Args:
        checkpoint: a checkpoint, or a run folder (its last one). weights: "ema" or "model".
        samplers: options of the group sampler.
        calls: numbers of network calls an image, each the most that a sampler may make.
        n, batch_size, seed, label, guidance, precision: as in the job sample.
        data, features, metrics, cache: as in the job evaluate.
    """

    known: ClassVar = ("sweep.json",)
    free: ClassVar = (*Job.free, "cache", "samplers", "calls")
    samplers: list[str] = field(default_factory=lambda: ["velocity_abm", "heun", "ddim"])
    calls: list[int] = field(default_factory=lambda: [8, 18, 35])

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(LEAST, n=self.n)
        for name in ("samplers", "calls"):
            if not getattr(self, name):
                raise UserError(f"{name}: must not be an empty list.")
        for calls in self.calls:
            at_least(1, calls=calls)

    def plan(self, out: Path) -> Plan:
        from scoregen.loading import describe

        checkpoint = find_checkpoint(self.checkpoint)
        extractor = extractor_for(self)
        require_shape(checkpoint, self.data)
        sde = build(describe(checkpoint)["sde"], trust=self.trust, where="sde")
        plans = [(name, *plan) for name in self.samplers for plan in plans_of(name, self.calls, sde)]
        for name, node, _, calls in plans:
            self._sample(node).plan(_place(out, name, calls) / "samples")
        lines = [self.measured_against()]
        lines += [f"{name}: {steps} steps, {calls} calls" for name, _, steps, calls in plans]
        return Plan(
            lambda: self._measure(plans, extractor, out), [*lines, f"out: {out}"], origin(checkpoint, self.weights)
        )

    def _sample(self, node: dict[str, Any]) -> Sample:
        return self.drawn_by(build(node, where="samplers"))

    def _measure(
        self, plans: list[tuple[str, dict[str, Any], int, int]], extractor: FeatureExtractor, out: Path
    ) -> None:
        from scoregen.metrics.sweep import Point, save_figure, table
        from scoregen.parallel import rank

        points, reports = [], []
        for name, node, steps, calls in plans:
            end_if_asked()
            folder = _place(out, name, calls)
            report = measured(self, self._sample(node).run(folder / "samples"), extractor, folder / "metrics.json")
            reports.append(report.as_dict())
            points.append(Point(name, steps, calls, report[extractor.frechet_name]))
        if rank() == 0:
            write_json(out / "sweep.json", reports)
            print(table(points))
            print(save_figure(points, out / "sweep.png"))

    def result(self, out: Path) -> float | None:
        import json

        return min(float(report["metrics"][0]["value"]) for report in json.loads((out / "sweep.json").read_text()))


def _place(out: Path, name: str, calls: int) -> Path:
    return out / f"{name}_{calls:03d}_calls"


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
