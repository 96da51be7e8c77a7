r"""The demo: a page on this machine, where a checkpoint is tried by hand. It serves, and writes no folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoregen.checks import inside
from scoregen.errors import UserError
from scoregen.jobs.conditioning import find_checkpoint, named
from scoregen.jobs.fast import FastJob
from scoregen.jobs.job import Plan, Weights
from scoregen.smoothing import ClassifierInput

if TYPE_CHECKING:
    from scoregen.jobs.demo_page import Tabs

_HERE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Demo(FastJob):
    r"""Serves a page that samples, interpolates, despeckles and certifies; keys as in conf/demo.yaml.

        It is described as a job is, but owns no folder: `run` returns when the page is stopped.

    Args:
        checkpoint: a denoiser or a classifier: a checkpoint, or a run folder. weights: "ema", "model" or "ema:LENGTH".
        null_label: as in the job sample.
        classifier: classifier that certifies uploads: a run folder, or a source as in the job certify.
        classifier_weights, classifier_input: weights and input of a classifier from elsewhere, as in the job certify.
        server_name: address to which the page is bound; "0.0.0.0" for every address of this machine.
        server_port: port of the page; None: the first free one from 7860.
        share: whether the page gets a public link, through servers of gradio. inbrowser: whether a browser is opened.
    """

    checkpoint: str | None = None
    weights: Weights = "ema"
    null_label: int | None = None
    classifier: str | None = None
    classifier_weights: str | None = None
    classifier_input: ClassifierInput = field(default_factory=ClassifierInput)
    server_name: str = "127.0.0.1"
    server_port: int | None = None
    share: bool = False
    inbrowser: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint is None and self.classifier is None:
            raise UserError("checkpoint, classifier: give one of them or both, got neither.")
        if self.server_port is not None:
            inside(1, 65535, server_port=self.server_port)
        if self.checkpoint is None:
            self.refuse_ignored({"null_label": "needs checkpoint=..., the denoiser that knows it"})
        if self.classifier is None or Path(self.classifier).is_dir():
            reason = "needs a classifier from elsewhere, classifier=SOURCE"
            self.refuse_ignored({"classifier_weights": reason, "classifier_input": reason})

    def plan(self, out: Path) -> Plan:
        from scoregen import parallel
        from scoregen.jobs.demo_page import imported, launch, page

        gr = imported()
        if parallel.world_size() > 1:
            raise UserError("the page is served from one process. Start it without torchrun or accelerate.")
        tabs = self.tabs()
        absent = [f"no tab {name}: {why}" for name, why in tabs.absent().items()]
        open_to = [] if self.server_name in _HERE else [f"server_name: {self.server_name} lets other machines in"]
        shared = ["share: the page gets a public link, and goes through servers of gradio"] if self.share else []

        def work() -> None:
            launch(gr, page(gr, tabs), self)

        return Plan(work, [*tabs.facts, *absent, *open_to, *shared])

    def run(self, out: Path | str = ".", started: Callable[[Path], None] | None = None) -> Path:
        r"""Serves the page until it is stopped; a dry run only loads what is behind it.

        Args:
            out: is not written to. started: is not called, since no folder is taken.

        Raises:
            UserError: a mistake in the values, no tab that the checkpoint can serve, or a port that is in use.
        """
        plan = self.plan(Path(out))
        print(*plan.lines, sep="\n", flush=True)
        if not self.dry_run:
            plan.work()
        return Path(out)

    def tabs(self) -> "Tabs":
        r"""What is behind each tab.

        Raises:
            UserError: the checkpoint can serve no tab.
        """
        from scoregen.jobs.demo_certifying import certifying_of
        from scoregen.jobs.demo_despeckling import despeckling_of
        from scoregen.jobs.demo_page import Tabs
        from scoregen.jobs.demo_sampling import drawing_of, path_of

        checkpoint = None if self.checkpoint is None else find_checkpoint(self.checkpoint)
        model: Any = None if checkpoint is None else self.loaded(checkpoint, self.weights, self.null_label)
        facts = [] if checkpoint is None else [_named(checkpoint, self.weights), f"model: {_in_words(model)}"]
        facts += [] if self.classifier is None else [f"classifier: {Path(self.classifier).name}"]
        drawing = (
            "No checkpoint of a denoiser was given." if checkpoint is None else drawing_of(self, checkpoint, model)
        )
        tabs = Tabs(
            facts, drawing, path_of(drawing), despeckling_of(drawing), certifying_of(self, checkpoint, model)
        )  # fmt: skip
        if len(tabs.absent()) == len(tabs.all()):
            raise UserError(
                f"checkpoint: the page could show nothing. {' '.join(dict.fromkeys(tabs.absent().values()))}"
            )
        return tabs

    def origin(self) -> dict[str, Any]:
        r"""What the jobs behind the page are told of the checkpoint, where it is not what they have anyway."""
        found: dict[str, Any] = {"checkpoint": self.checkpoint}
        found |= {} if self.weights == "ema" else {"weights": self.weights}
        return found | ({"trust": self.trust} if self.trust else {})


def _named(checkpoint: Path, weights: str) -> str:
    r"""Run and step, not a folder of the machine: the page may be for others."""
    from scoregen.loading import is_foreign

    if is_foreign(checkpoint):
        return f"checkpoint: {checkpoint.name}, of diffusers"
    return f"checkpoint: {checkpoint.parent.parent.name}/{checkpoint.name}, {named(weights)} weights"


def _in_words(model: Any) -> str:
    size = f"{sum(p.numel() for p in model.parameters()):,} parameters"
    if not hasattr(model, "sde"):
        return f"{type(model).__name__}, {size}"
    kind = "additive" if model.sde.chart.as_log() is None else "multiplicative"
    return f"{type(model).__name__} of {type(model.sde).__name__}, an {kind} process, {size}".replace(" an m", " a m")
