r"""Noise levels fitted to a model and a sampler, for the command line, for configurations and for diffusers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from scoregen.checks import at_least
from scoregen.description import built_option
from scoregen.errors import UserError
from scoregen.jobs.conditioning import (
    Label,
    Precision,
    announced,
    autocast,
    find_checkpoint,
    guided,
    image_shape,
    known_of,
    labels_of,
    pictured,
)
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Plan, Weights, origin
from scoregen.samplers import Sampler
from scoregen.samplers.fitting import Fit, FittedLevels


@dataclass(frozen=True, kw_only=True)
class FitGrid(FastJob):
    r"""Writes levels.yaml and fit.json; keys as in conf/fit_grid.yaml.

    Args:
        checkpoint: a checkpoint, or a run folder (its last one). weights: "ema", "model" or "ema:LENGTH".
        sampler: deterministic; its steps are the number of levels, its grid is what they begin with.
        n: starts of the fit, and of each of the two sets on which the levels have to be better.
        batch_size: starts a process works on at once.
        seed: seed of the starts.
        start: noise ratio from which samples will start, as a purification does; None: that of the process.
        evaluations: runs of the sampler for each level that is fitted. reference: steps of the fine solution.
        label, guidance, null_label, precision: as in the job sample.
    """

    known: ClassVar = ("levels.yaml", "fit.json")
    checkpoint: str | None = None
    weights: Weights = "ema"
    sampler: Sampler = field(default_factory=built_option("sampler", "velocity_abm"))
    n: int = 64
    batch_size: int = 64
    seed: int = 0
    start: float | None = None
    evaluations: int = 60
    reference: int = 100
    label: Label = None
    guidance: float = 1.0
    null_label: int | None = None
    precision: Precision = "no"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, reference=self.reference)
        self._fit()

    @classmethod
    def name(cls) -> str:
        return "fit_grid"

    def _fit(self) -> Fit:
        kept = ("n", "batch_size", "seed", "start", "evaluations", "reference")
        return Fit(**{name: getattr(self, name) for name in kept})

    def plan(self, out: Path) -> Plan:
        from scoregen.samplers.fitting import check_fits

        checkpoint = find_checkpoint(self.checkpoint)
        model: Any = pictured(self.loaded(checkpoint, self.weights, self.null_label), None)
        labels = labels_of(self.label, self.n, model, self.seed, known_of(checkpoint).classes)
        denoiser, shape = guided(model, self.guidance, labels), image_shape(checkpoint, model)
        try:
            check_fits(denoiser, self.sampler, self.start)
        except (ValueError, TypeError) as error:
            raise UserError(str(error)) from error

        def work() -> None:
            with autocast(self.precision):
                self._report(self._found(denoiser, shape, labels), out)

        name, steps = type(self.sampler).__name__, self.sampler.steps
        most = self.evaluations * (steps - 1)
        lines = [
            announced(checkpoint, self.weights),
            f"sampler: {name}, {steps} steps; {self.n} starts, at most {most} evaluations",
            f"out: {out}",
        ]
        return Plan(work, lines, origin(checkpoint, self.weights))

    def _found(self, denoiser: Any, shape: tuple[int, ...], labels: Any) -> FittedLevels:
        from scoregen.interruption import end_if_asked
        from scoregen.progress import progress

        with progress(total=self.evaluations * (self.sampler.steps - 1), description="fitting", unit="grid") as bar:

            def evaluated() -> None:
                bar.update()
                end_if_asked()

            return self._fit()(denoiser, self.sampler, shape, labels, evaluated)

    def _report(self, found: FittedLevels, out: Path) -> None:
        from scoregen.parallel import rank
        from scoregen.storage import write_json, write_yaml

        if rank() > 0:
            return
        levels = list(found.levels.values)
        values = {
            "accepted": found.accepted,
            "levels": levels,
            "sigmas": [*levels, 0.0],  # as EulerDiscreteScheduler takes them
            "flow_sigmas": [level / (1 + level) for level in levels],  # of FlowMatchEulerDiscreteScheduler, shift=1
            "rmse_of_the_grid": list(found.before),
            "rmse_of_the_fit": list(found.after),
        }
        write_json(out / "fit.json", values)
        write_yaml(out / "levels.yaml", {"_target_": "scoregen.samplers.Levels", "values": levels})
        grid = type(self.sampler.grid).__name__
        for name, old, new in zip(("starts of the fit", "others", "others"), found.before, found.after, strict=True):
            print(f"{name}: RMSE to {self.reference} steps {old:.4g} with {grid}, {new:.4g} fitted")
        if not found.accepted:
            print(f"the fitted levels are not better on both sets of other starts: the levels are those of {grid}")
        text = ", ".join(map(str, levels))  # all digits: a first level that is rounded up lies outside the process
        print(f"'sampler.grid={{_target_: scoregen.samplers.Levels, values: [{text}]}}'")
        print(f"diffusers: sigmas=[{text}, 0.0]; of a flow-matching scheduler with shift=1: flow_sigmas of fit.json")
        print(out / "levels.yaml")

    def result(self, out: Path) -> float | None:
        import json

        values = json.loads((out / "fit.json").read_text())
        checks: list[float] = values["rmse_of_the_fit" if values["accepted"] else "rmse_of_the_grid"][1:]
        return sum(checks) / len(checks)
