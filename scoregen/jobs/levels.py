r"""What an evaluation says by noise level: dimension, memorisation, information of labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoregen.errors import UserError
from scoregen.jobs.conditioning import values_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scoregen.metrics import Report

MEASURES = ("dimension", "memorisation", "information")
POINTS = 500  # of a part, evenly spread
SINGULAR = 0.95  # share of its numbers below which a sample's dimension makes bits/dim depend on s_min


class ByLevel:
    r"""The measures that an evaluation wants of its checkpoint, added to its report.

    Args:
        job: the evaluation. checkpoint: whose denoiser is asked.

    Raises:
        UserError: the data or the network do not allow one of them.
    """

    def __init__(self, job: Any, checkpoint: Path) -> None:
        from scoregen.models.protocol import check_mean

        self.job, self.wanted = job, [name for name in MEASURES if getattr(job, name)]
        self.model = job.loaded(checkpoint, job.weights, job.null_label)
        try:
            check_mean(self.model)
        except ValueError as error:
            raise UserError(f"{self.wanted[0]}: {error}") from error
        if job.data.part("test") is None:
            raise UserError(f"{self.wanted[0]}: needs a test part of the data, got none. Give data.test=auto.")
        if "memorisation" in self.wanted and job.data.part("train") is None:
            raise UserError("memorisation: needs a training part of the data, got none. Give data.test=auto.")
        if "information" in self.wanted:
            self._require_labels(checkpoint)

    def told(self) -> str:
        r"""The line that says which data are asked about."""
        training = f" and {self.job.data.told('train', POINTS)}" if "memorisation" in self.wanted else ""
        return f"by noise level: {', '.join(self.wanted)}; of {self.job.data.told('test', POINTS)}{training}"

    def _require_labels(self, checkpoint: Path) -> None:
        from scoregen.loading import describe

        if getattr(self.model, "num_classes", None) is None or not self.job.data.num_classes:
            raise UserError("information: needs a network and data with classes. Train with conditional=true.")
        loss = describe(checkpoint, self.job.null_label).get("loss")
        if loss is not None and not any(values_of(loss, "label_dropout")):
            raise UserError(
                "information: the network never learnt to do without its label. Train with loss.label_dropout=0.1."
            )

    def __call__(self, report: "Report", out: Path) -> None:
        r"""Adds numbers, details and warnings to a report, and curves to its folder; by the first process."""
        from scoregen.parallel import rank

        if rank() == 0:
            for name in self.wanted:
                getattr(self, f"_{name}")(report, out)

    def _points(self, name: str) -> tuple[Any, Any]:
        r"""Some data of a part in their units, and their labels where the network takes them."""
        from scoregen.data.pictures import spread
        from scoregen.parallel import device

        part = self.job.data.part(name)
        x, label = part.in_units(spread(len(part), POINTS))
        told = label is not None and getattr(self.model, "num_classes", None) is not None
        return x.to(device()), label.to(device()) if told else None

    def _generator(self) -> Any:
        from scoregen.rng import Stream, generator

        return generator(self.job.seed, Stream.LEVEL)

    def _dimension(self, report: "Report", out: Path) -> None:
        from scoregen.samplers import local_dimension

        x, label = self._points("test")
        found = local_dimension(self.model, x, label=label, generator=self._generator())
        at_least = local_dimension(self.model, x, self.model.sde.s_min, label=label, generator=self._generator())
        mean, n = found.value.mean(0).tolist(), x[0].numel()
        report.details["dimension"] = {"s": found.s.tolist(), "mean": mean, "numbers": n, "points": len(x)}
        least = float(at_least.value.mean())
        if least < SINGULAR * n:
            report.warnings.append(
                f"bits/dim depends on s_min = {self.model.sde.s_min:g}: it falls by {1 - least / n:.2g} for each "
                f"halving, since the data have about {least:.0f} of {n} dimensions there. Compare models at one s_min, "
                "or dequantise."
            )
        _curve(out / "dimension.png", "local dimension", found.s.tolist(), {f"of {n} numbers": mean})

    def _memorisation(self, report: "Report", out: Path) -> None:
        from scoregen.metrics import Number, memorisation
        from scoregen.samplers.dimension import usual_levels

        found = memorisation(self.model, self._points("train"), self._points("test"), usual_levels(self.model))
        worst = int(found.auroc.argmax())
        note = f"training against held-out points, at s = {float(found.s[worst]):.2g}, where it is largest"
        report.numbers.append(Number("AUROC of residuals", float(found.auroc[worst]), "lower", 0.5, note=note))
        curves = {"training": found.training.tolist(), "held-out": found.held_out.tolist()}
        report.details["memorisation"] = {"s": found.s.tolist(), "auroc": found.auroc.tolist(), **curves}
        _curve(out / "memorisation.png", "residual |x - D|^2 / s^2", found.s.tolist(), curves)

    def _information(self, report: "Report", out: Path) -> None:
        import math

        from scoregen.metrics import Number, information

        x, label = self._points("test")
        found = information(self.model, x, label, generator=self._generator())
        low, high = (found.nats + sign * 1.96 * found.standard_error for sign in (-1, 1))
        note = f"nats, 95 %; log {self.job.data.num_classes} = {math.log(self.job.data.num_classes):.3f}"
        report.numbers.append(Number("information of labels", found.nats, "none", None, low, high, note))
        curves = {"density": found.density.tolist()}
        losses = {"loss": found.loss.tolist(), "loss_with_label": found.loss_with_label.tolist()}
        report.details["information"] = {"s": found.s.tolist(), **curves, **losses}
        _curve(out / "information.png", "nats for each step of log s", found.s.tolist(), curves)


def _curve(path: Path, name: str, s: list[float], curves: dict[str, list[float]]) -> None:
    from scoregen.pictures import figure

    def draw(axes: "Axes") -> None:
        for label, values in curves.items():
            axes.plot(s, values, marker=".", label=label)
        axes.set_xscale("log")
        axes.set_xlabel("noise ratio s")
        axes.set_ylabel(name)
        axes.legend()

    figure(path, draw)


def refusals() -> dict[str, str]:
    r"""What to say of each measure where there is no denoiser to ask."""
    return dict.fromkeys(MEASURES, "needs checkpoint=..., whose denoiser is asked")
