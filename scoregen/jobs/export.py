r"""Export: a trained model as a folder of diffusers with a model card, and as a torch.export program."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from scoregen.checks import at_least
from scoregen.data import Source
from scoregen.description import built_option
from scoregen.errors import UserError
from scoregen.jobs.conditioning import find_checkpoint, known_of, labels_of, require_shape
from scoregen.jobs.job import LoadingJob, Plan, Weights, origin
from scoregen.samplers import Sampler
from scoregen.storage import RECORD, read_record


@dataclass(frozen=True, kw_only=True)
class Export(LoadingJob):
    r"""Exports a model for programs without scoregen; keys as in conf/export.yaml.

    Args:
        checkpoint: a checkpoint, or a run folder (its last one). weights: "ema", "model" or "ema:LENGTH".
        program: also program.pt2, a `torch.export` program of D(u, s, label); for models that diffusers does not have
            it is all that is written.
        n: uncurated samples on the card; 0 for none. sampler, seed: of these samples.
        data: those of the training, for the nearest training images of the samples; None leaves these out.
        evaluation: folder of the job evaluate, whose numbers stand on the card.
        about, licence, data_licence, hardware: texts for the card: what the model is, its licence, that of the data,
            what it was trained on.
        hub: owner/name: the folder is pushed there. private: whether a new repository is.
    """

    known: ClassVar = ("README.md", "scheduler", "model_index.json", "pytorch_lora_weights.safetensors", "program.pt2")
    checkpoint: str | None = None
    weights: Weights = "ema"
    program: bool = False
    n: int = 16
    sampler: Sampler = field(default_factory=built_option("sampler", "velocity_abm"))
    seed: int = 0
    data: Source | None = None
    evaluation: str | None = None
    about: str | None = None
    licence: str | None = None
    data_licence: str | None = None
    hardware: str | None = None
    hub: str | None = None
    private: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, n=self.n)
        if self.hub is not None and self.hub.count("/") != 1:
            raise UserError(f"hub: must be owner/name, got '{self.hub}'. Leave it out to keep the folder here.")
        if self.data is not None and self.n == 0:
            raise UserError("data: their nearest images need samples, got n=0. Give n=16.")

    def plan(self, out: Path) -> Plan:
        from scoregen.models import LatentDiffusion

        checkpoint = find_checkpoint(self.checkpoint)
        model: Any = self.loaded(checkpoint, self.weights)
        if isinstance(model, LatentDiffusion):
            return self._plan_lora(model, checkpoint, out)
        model = _folded(model)
        parts = self._parts(model)
        facts, evaluation = origin(checkpoint, self.weights), self._evaluation()
        self._check_same(checkpoint, facts["weights_sha256"])
        lines = [f"writes: {', '.join([*parts, 'README.md'])}", f"out: {out}"]
        return Plan(lambda: self._write(model, checkpoint, out, evaluation), lines, facts)

    def _check_same(self, checkpoint: Path, weights: str) -> None:
        r"""Refuses an evaluation of other weights, and data that are not like those of the training."""
        if self.evaluation is not None and (Path(self.evaluation) / RECORD).exists():
            record = read_record(Path(self.evaluation))
            if record.get("weights_sha256", weights) != weights:
                raise UserError(
                    f"evaluation: '{self.evaluation}' measured the weights of '{record.get('checkpoint')}', which are "
                    f"not those of '{checkpoint}'. Give an evaluation of them."
                )
        if self.data is not None:
            require_shape(checkpoint, self.data)

    def _parts(self, model: Any) -> list[str]:
        r"""What is written; refuses a model that diffusers does not have where no program is asked for."""
        from scoregen.models.interop.writing import written

        try:
            found = written(model)
        except UserError:
            if not self.program:
                raise
            return ["program.pt2"]
        parts = [found.part, "scheduler", *(["model_index.json"] if found.pipeline is not None else [])]
        return [*parts, *(["program.pt2"] if self.program else [])]

    def _evaluation(self) -> dict[str, Any] | None:
        import json

        if self.evaluation is None:
            return None
        file = Path(self.evaluation) / "metrics.json"
        try:
            found: dict[str, Any] = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"evaluation: '{self.evaluation}' must be a folder of the job evaluate, with metrics.json ({error})."
            ) from error
        return found

    def _plan_lora(self, model: Any, checkpoint: Path, out: Path) -> Plan:
        from scoregen import parallel
        from scoregen.jobs.card import lora_card
        from scoregen.storage import write_text

        reason = "is not for adapters of a text-to-image pipeline, whose card has no samples and no numbers"
        self.refuse_ignored(dict.fromkeys(("data", "evaluation", "program", "n", "seed", "sampler"), reason))

        def work() -> None:
            if parallel.rank() == 0:
                try:
                    model.save_lora(out)
                except ValueError as error:
                    raise UserError(f"checkpoint: {error}") from error
                write_text(out / "README.md", lora_card(self, checkpoint))
                self._push(out)

        lines = ["writes: pytorch_lora_weights.safetensors, README.md", f"out: {out}"]
        return Plan(work, lines, origin(checkpoint, self.weights))

    def _write(self, model: Any, checkpoint: Path, out: Path, evaluation: Any) -> None:
        from scoregen import parallel
        from scoregen.jobs.card import card
        from scoregen.storage import write_text

        if parallel.rank() > 0:
            return
        usage = self._write_model(model.cpu(), out)
        pictures = self._pictures(model.to(parallel.device()), checkpoint, out)
        write_text(out / "README.md", card(self, model, checkpoint, usage, pictures, evaluation))
        self._push(out)
        print(out / "README.md")

    def _write_model(self, model: Any, out: Path) -> str:
        from scoregen.models.interop import writing
        from scoregen.models.program import save_program

        usage = []
        if self._parts(model) != ["program.pt2"]:
            usage.append(writing.usage(model, writing.save(model, out)))
        if self.program:
            usage.append(save_program(model, out / "program.pt2"))
        return "\n".join(usage)

    def _pictures(self, model: Any, checkpoint: Path, out: Path) -> dict[str, str]:
        r"""The uncurated samples and their nearest training images; captions by file name."""
        from scoregen.pictures import UNIT, is_image, save_grid
        from scoregen.rng import Stream, generators

        known = known_of(checkpoint)
        if self.n == 0 or model.shape is None:
            return {}
        labels = labels_of("all" if model.num_classes else None, self.n, model, self.seed, known.classes)
        label = None if labels is None else labels.to(next(model.parameters()).device)
        draws = generators(self.seed, Stream.SAMPLE, 0, range(self.n))
        samples = self.sampler(model, (self.n, *model.shape), label=label, generator=draws)
        if not is_image(samples):
            return {}
        save_grid(samples, out / "samples.png", data_range=known.range or UNIT)
        steps = f", {self.sampler.steps} steps" if hasattr(self.sampler, "steps") else ""
        by = f"{type(self.sampler).__name__}{steps}, seed {self.seed}"
        found = {"samples.png": f"{self.n} samples by {by}; none was left out."}
        if self.data is not None:
            save_grid(_nearest(samples.cpu(), self.data.train), out / "nearest.png", data_range=known.range or UNIT)
            found["nearest.png"] = f"The nearest of the {len(self.data.train):,} training images, in the same order."
        return found

    def _push(self, out: Path) -> None:
        if self.hub is None:
            return
        from huggingface_hub import HfApi

        api = HfApi()
        try:
            api.create_repo(self.hub, private=self.private, exist_ok=True)
            api.upload_folder(folder_path=out, repo_id=self.hub, ignore_patterns=["job.json", ".hydra/*", ".lock*"])
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"hub: '{self.hub}' did not take the folder ({reason}). It is whole in '{out}'. Log in with `hf auth "
                "login`, then give the same command again."
            ) from error


def _folded(model: Any) -> Any:
    r"""The model with its adapters folded into the weights, where it has any."""
    from scoregen.models.lora import LoRA, merge_adapters

    return merge_adapters(model) if any(isinstance(part, LoRA) for part in model.modules()) else model


def _nearest(samples: Any, part: Any) -> Any:
    r"""The training image nearest to each sample, in pixels."""
    import torch

    best, found = torch.full((len(samples),), torch.inf), torch.zeros_like(samples)
    for first in range(0, len(part), 1000):
        x = part.units(part[list(range(first, min(first + 1000, len(part))))][0])
        distance, place = torch.cdist(samples.flatten(1), x.flatten(1)).min(1)
        nearer = distance < best
        best, found[nearer] = torch.where(nearer, distance, best), x[place[nearer]]
    return found
