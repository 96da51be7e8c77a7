r"""Training: data, a process, a model and a loss to a run folder with checkpoints and a report."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from scoregen.config import Config, Node, accepts, build
from scoregen.data import Source, identity
from scoregen.data.parts import NAMES
from scoregen.description import node_option, option, root_node
from scoregen.errors import UserError, listed
from scoregen.jobs.adoption import adopted
from scoregen.jobs.data_moments import set_moments
from scoregen.jobs.job import LoadingJob, Plan
from scoregen.jobs.lora import adapt, give_prompts
from scoregen.jobs.picks import (
    chart_text,
    chosen_chart,
    chosen_loss,
    chosen_model,
    chosen_steps,
    fill_model,
    has_shape,
    schema_of,
    tell_learned,
    tell_next,
    told_steps,
)
from scoregen.jobs.rehearsal import check_loads, check_loss, check_meaning, check_monitor, check_optimizer
from scoregen.jobs.speckle_data import check_speckle
from scoregen.targets import check_targets

MONITORS = ("early_stopping", "quality", "accuracy", "few_calls", "lora_export", "preview")  # previews draw the log


@dataclass(frozen=True)
class TrainingParts:
    r"""What is trained, and how."""

    trainer: Any
    loss: Any
    model: Any


@dataclass(frozen=True)
class TrainingFolder:
    r"""The run folder, the resolved configuration, and the checkpoint that the run goes on from or None."""

    path: Path
    config: Config
    start: Path | None


@dataclass(frozen=True, kw_only=True)
class TrainPlan(Plan):
    r"""Of a training: its resolved configuration, and the checkpoint that it goes on from or None."""

    config: Config = field(default_factory=dict)
    start: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Train(LoadingJob):
    r"""Trains a model; keys as in conf/train.yaml. Parts may be nodes (mappings with a _target_) or objects.

    Args:
        data: the source. sde: the process. chart: of additive processes; picked by the range of the data where open.
        model: its network is picked by the shape of the data where it is open.
        loss: what is minimised. sampler: of previews and quality. trainer: the loop. logger: beside metrics.jsonl.
        seed: of weights, order, noise. conditional: use the labels, where the data have some.
        init: checkpoint whose averaged weights are the start of a new run; or a folder of diffusers or a hub id, whose
            model and process are taken with its weights.
        null_label: of a class-conditional network of diffusers in init: its class for "no label".
        lora: adapters beside the weights of init.
        data_moments: None, "scalar" or "pixel": moments of the data for the prior.
        objective: what `result` returns: the last loss, or the best value of the monitor quality or accuracy.
        preview, early_stopping, quality, accuracy, few_calls, lora_export: monitors; on where `every` is given.
    """

    folder_key: ClassVar = "hydra.run.dir"
    read_parts: ClassVar = NAMES
    data: Source
    sde: Node = field(default_factory=node_option("sde", "edm"))
    chart: Node = field(default_factory=node_option("chart", "auto"))
    model: Node = field(default_factory=node_option("model", "auto"))
    loss: Node = field(default_factory=node_option("loss", "score_matching"))
    sampler: Node = field(default_factory=node_option("sampler", "velocity_abm"))
    trainer: Node = field(default_factory=node_option("trainer", "default"))
    logger: Node = field(default_factory=node_option("logger", "none"))
    seed: int = 0
    conditional: bool = True
    init: str | None = None
    null_label: int | None = None
    lora: Node = field(default_factory=root_node("train", "lora"))
    data_moments: Literal["scalar", "pixel"] | None = None
    objective: Literal["loss", "quality", "accuracy"] = "loss"
    preview: Node | None = field(default_factory=root_node("train", "preview"))
    early_stopping: Node | None = field(default_factory=root_node("train", "early_stopping"))
    quality: Node | None = field(default_factory=root_node("train", "quality"))
    accuracy: Node | None = field(default_factory=root_node("train", "accuracy"))
    few_calls: Node | None = field(default_factory=root_node("train", "few_calls"))
    lora_export: Node | None = field(default_factory=root_node("train", "lora_export"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective != "loss" and (getattr(self, self.objective) or {}).get("every") is None:
            raise UserError(f"objective: {self.objective} needs {self.objective}.every=..., the steps between values.")
        if self.objective == "accuracy" and self.data.part("validation") is None:
            raise UserError(
                f"objective: accuracy chooses between trainings, and {self.data.name} has no validation part. Give "
                "data.validation=0.1, so that nothing is chosen by the test part."
            )

    def plan(self, out: Path) -> TrainPlan:
        from scoregen.training.run import prepare

        config, picked = self._resolved(out)
        parts = self._parts(config, out)
        check_optimizer(parts.trainer, parts.model, parts.loss)
        parts.trainer.check(parts.model, parts.loss)
        config["trainer"] = parts.trainer.settled(config["trainer"])
        told = check_speckle(parts.loss, getattr(parts.model, "sde", None), self.data)
        check_loss(parts.loss, parts.model, self.data, parts.trainer.steps)
        hooks = self._hooks(config, parts)
        logger = build(self.logger, where="logger")
        if self.data_moments is not None:
            set_moments(parts.model, self.data, self.data_moments)
        start = prepare(out, config, parts.trainer.resume, self.data.entries())
        work = partial(self._fit, parts, TrainingFolder(out, config, start), logger, hooks)
        lines = [*picked, *_lines(parts, self.data, out, start), *told_steps(parts.trainer, self.data), *told]
        return TrainPlan(work=work, lines=lines, config=config, start=start)

    def _parts(self, config: dict[str, Any], out: Path) -> TrainingParts:
        r"""Trainer, loss and model, which has its first weights, its adapters and its prompts."""
        from scoregen.checkpoint import build_model
        from scoregen.rng import Stream, seed_all

        trainer = build(chosen_steps(self.trainer, self.data)[0], where="trainer")
        loss = build(config["loss"], where="loss")
        config["model"] = dict(tell_next(Node(config["model"]), loss))
        seed_all(self.seed, Stream.WEIGHTS)
        model: Any = build_model(config)
        self._load_init(model, config, out, trainer.resume)
        tell_learned(config, model, loss)
        config["model"] = dict(adapt(self.lora, Node(config["model"]), self.init, model))
        give_prompts(model, self.data)
        check_loads(config, model, self.trust)
        return TrainingParts(trainer, loss, model)

    def _resolved(self, out: Path) -> tuple[dict[str, Any], list[str]]:
        r"""The configuration without open choices, as checkpoints keep it; and what was picked, in words."""
        config = {part.name: self.described(part.name) for part in fields(self)} | {"dataset": self.data.identity()}
        trainer, steps = chosen_steps(self.trainer, self.data)
        config["trainer"] = dict(trainer)
        if (found := adopted(self, out)) is not None:
            return config | found, [f"model, sde: those of {self.init}", *steps]
        node, name = chosen_model(self.model, self.data)
        config["model"] = dict(fill_model(node, self.data, self.conditional))
        picked = [f"model: {name}, picked by the shape {tuple(self.data.shape)} of the data"] if name else []
        loss, told = chosen_loss(self.loss, self.data)
        config["loss"], picked = dict(loss), [*picked, *told, *steps]
        if (schema := schema_of(self.data)) is not None:
            picked += ["columns:", *schema.told()]
        if accepts(config["model"], "sde", "model"):
            sde, by_data = chosen_chart(self.sde, self.chart, self.data)
            config["sde"] = dict(sde)
            if by_data:
                picked.append(f"chart: {chart_text(sde['chart'], self.data)}")
            if not has_shape(config["model"]):
                config["shape"] = list(self.data.shape)
        else:
            self._refuse_process(config["model"])
        check_targets({part: config[part] for part in ("model", "sde")}, trust=self.trust, typed=True)
        return config, picked

    def _refuse_process(self, model: Mapping[str, Any]) -> None:
        r"""Refuses a process or chart that was given for a model without one."""
        for key, usual in (("sde", option("sde", "edm")), ("chart", option("chart", "auto"))):
            if dict(getattr(self, key)) != usual:
                name = str(model["_target_"]).rpartition(".")[2]
                raise UserError(f"{key}: {name} has no process, so it would have no effect. Leave {key}=... out.")

    def _load_init(self, model: Any, config: Config, out: Path, resume: str | None) -> None:
        from scoregen.loading import describe, find, load_init
        from scoregen.training.run import resume_point

        if self.init is None or resume_point(out, resume) is not None:
            return
        first = find(self.init, "init")
        check_meaning(describe(first)["model"], config["model"], first)
        load_init(model, first)

    def _hooks(self, config: Config, parts: TrainingParts) -> list[Any]:
        r"""The monitors that are switched on (those with `every`)."""
        trainer, loss, model = parts.trainer, parts.loss, parts.model
        sampler = build(self.sampler, where="sampler")
        offered = {"source": self.data, "loss": loss, "sampler": sampler, "config": config, "model": model}
        hooks = []
        for name in MONITORS:
            node = getattr(self, name)
            if node is None:
                continue
            if node.get("every") == "checkpoint":
                node = Node({**node, "every": trainer.checkpoint_every})
            if node.get("every") is None:  # switched off; its other keys are checked all the same
                build({k: v for k, v in node.items() if k != "every"} | {"_partial_": True}, where=name)
                continue
            if (name == "accuracy") == hasattr(model, "sde") and name != "early_stopping":
                raise UserError(f"{name}.every: must be null for a {type(model).__name__}, got {node['every']}.")
            hooks.append(build(node, where=name, **{k: v for k, v in offered.items() if accepts(node, k)}))
            check_monitor(name, hooks[-1], model)
        return hooks

    def _fit(self, parts: TrainingParts, folder: TrainingFolder, logger: Any, hooks: Sequence[Any]) -> None:
        from scoregen.parallel import rank
        from scoregen.training import JSONLines

        out = folder.path
        options = {"start": folder.start, "loggers": [JSONLines(), logger] if rank() == 0 else [], "hooks": hooks}
        parts.trainer.fit(parts.model, parts.loss, self.data, out, folder.config, seed=self.seed, **options)
        if rank() == 0:
            print(f"done: {out}/report.html" if (out / "report.html").exists() else f"done: {out}")

    def join_processes(self) -> None:
        from scoregen.training.processes import start_processes

        start_processes(self.trainer)

    def ended_by_signals(self, owner: Any) -> AbstractContextManager[None]:
        return nullcontext()  # the trainer ends it, between two steps

    def check_folder(self, out: Path, plan: Plan) -> None:
        return  # `prepare` has done so: a run may go on with more steps

    def take_folder(self, out: Path, plan: Plan) -> None:
        from scoregen.training.run import inherit, write_config

        assert isinstance(plan, TrainPlan)
        write_config(out, plan.config, plan.start)
        identity.write_entries(out, self.data.entries())
        inherit(out, plan.start)

    def give_back(self, out: Path) -> None:
        return  # config.yaml stays beside what was logged

    def result(self, out: Path) -> float | None:
        from scoregen.training.loggers import read_metrics

        lines = read_metrics(out)
        if self.objective == "loss":
            return next((line["loss"] for line in reversed(lines) if "loss" in line), None)
        if self.objective == "accuracy":
            return max((line["accuracy"] for line in lines if "accuracy" in line), default=None)
        measured = [value for line in lines if "KD" in line for name, value in line.items() if name[:2] in ("FD", "FI")]
        return min((value for value in measured if math.isfinite(value)), default=None)


def _lines(parts: TrainingParts, source: Source, out: Path, start: Path | None) -> list[str]:
    from scoregen.training.precision import mixed_precision

    trainer, model = parts.trainer, parts.model
    precision = mixed_precision(trainer.precision)
    parameters = sum(p.numel() for p in model.parameters())
    kind = type(model).__name__
    if getattr(model, "takes_next", False):
        kind += ", a flow map" if parts.loss.needs_next else ", told the next level, but this loss trains no jumps"
    resumed = f", resumed from {start}" if start else ""
    return [
        f"data: {source.name}, {len(source.train)} samples of shape {source.shape}, classes: {_classes(source)}",
        f"parts: {'; '.join(source.told(name) for name in NAMES)}; {_readers(trainer, source)}",
        f"model: {kind}, {parameters / 1e6:.2f} M parameters, precision: {precision}",
        f"run: {out}, {trainer.steps} steps of {trainer.batch_size}{_spread(trainer)}{resumed}",
    ]


def _classes(source: Source) -> str:
    r"""How many classes there are, and their names: a folder one level too high shows here."""
    return f"{source.num_classes} ({listed(source.class_names)})" if source.class_names else str(source.num_classes)


def _readers(trainer: Any, source: Source) -> str:
    r"""Which processes read the data, in words."""
    from scoregen.training.reading import chosen_workers

    count = chosen_workers(source.train) if trainer.workers is None else trainer.workers
    return f"read ahead by trainer.workers={count} for each process" if count else "read by the processes that train"


def _spread(trainer: Any) -> str:
    r"""How a batch is spread over processes and micro-batches, in words."""
    from scoregen.parallel import world_size

    parts, processes = trainer.micro_batches, world_size()
    model = "of one model" if trainer.sharding is not None else "with a copy of the model each"
    micro = f", in {parts} micro-batches" if parts > 1 else ""
    return micro + (f", on {processes} processes {model}" if processes > 1 else "")
