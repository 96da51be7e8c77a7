r"""The model card of an export: README.md with the front matter of the hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from scoregen.loading import describe

if TYPE_CHECKING:
    from scoregen.jobs.export import Export

_LIMITS = """Made for research on generative models of data like those above. It has not been tested for other uses.
It reproduces what its training data show, their gaps and their biases included, and may reproduce training images."""


def card(job: "Export", model: Any, checkpoint: Path, usage: str, pictures: Mapping[str, str], evaluation: Any) -> str:
    r"""The text of the card; what is not known is left out.

    Args:
        job: gives the texts. model: counted. checkpoint: of it.
        usage: lines of Python. pictures: captions by file name. evaluation: metrics.json of the job evaluate, or None.
    """
    size = sum(weights.numel() for weights in model.parameters()) / 1e6
    shown = [f"![{caption}]({name})\n\n{caption}" for name, caption in pictures.items()]
    sections = {
        "Use": f"`FOLDER` is this folder, or its name on the hub.\n\n```python\n{usage}```",
        "Model": _listed({"network": f"{type(model).__name__}, {size:.2f} M parameters", "sample": model.shape}),
        "Training": _listed(_training(job, checkpoint)),
        "Evaluation": _evaluated(evaluation),
        "Samples": "\n\n".join(shown),
        "Intended use and limits": _LIMITS,
        "Licence": _listed({"model": job.licence or "not given", "data": job.data_licence or "not given"}),
    }
    return _page(job, sections)


def lora_card(job: "Export", checkpoint: Path) -> str:
    r"""The card of adapters of a text-to-image pipeline."""
    pipeline = describe(checkpoint)["model"]["pipeline"]
    use = (
        f"```python\nfrom diffusers import StableDiffusionPipeline\n\npipe = StableDiffusionPipeline.from_pretrained("
        f'"{pipeline}")\npipe.load_lora_weights(FOLDER)\n```'
    )
    sections = {
        "Use": use,
        "Training": _listed(_training(job, checkpoint)),
        "Intended use and limits": _LIMITS,
        "Licence": _listed({"model": job.licence or "not given", "data": job.data_licence or "not given"}),
    }
    return _page(job, sections)


def _page(job: "Export", sections: Mapping[str, str]) -> str:
    name = (job.hub or Path(str(job.checkpoint)).name).rpartition("/")[2]
    library = "diffusers" if "diffusers" in sections["Use"] else "torch"
    front = {"library_name": library, "license": job.licence or "unknown", "tags": ["diffusion", "scoregen"]}
    head = f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name}\n"
    about = f"\n{job.about}\n" if job.about else ""
    return head + about + "".join(f"\n## {title}\n\n{text.strip()}\n" for title, text in sections.items() if text)


def _listed(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value not in (None, ""))


def _training(job: "Export", checkpoint: Path) -> dict[str, Any]:
    r"""What the run recorded of its training."""
    config, run = describe(checkpoint), checkpoint.parent.parent
    trainer, data = config.get("trainer") or {}, config.get("data") or {}
    return {
        "data": _data(config, data),
        "command": _command(run),
        "steps": _steps(checkpoint, trainer),
        "seed": config.get("seed"),
        "precision": trainer.get("precision"),
        "hardware": job.hardware,
        "time": _time(run, trainer),
        "weights": {"ema": "exponential moving average", "model": "last step"}.get(job.weights, job.weights),
    }


def _data(config: Mapping[str, Any], data: Mapping[str, Any]) -> str | None:
    known = config.get("dataset") or {}
    name = known.get("name") or str(data.get("_target_", "")).rpartition(".")[2]
    count = known.get("train") or known.get("n")
    return f"{name}, {count:,} samples" if isinstance(count, int) else name or None


def _command(run: Path) -> str | None:
    file = run / ".hydra" / "overrides.yaml"
    if not file.is_file():
        return None
    overrides = yaml.safe_load(file.read_text()) or []
    return f"`python train.py {' '.join(map(str, overrides))}`"


def _steps(checkpoint: Path, trainer: Mapping[str, Any]) -> str | None:
    file = checkpoint / "state.json"
    if not file.is_file():
        return None
    step, batch = json.loads(file.read_text())["step"], trainer.get("batch_size")
    return f"{step:,}, each of {batch} samples" if batch else f"{step:,}"


def _time(run: Path, trainer: Mapping[str, Any]) -> str | None:
    r"""From the speeds in the log: the time in which steps were made, without what lay between."""
    file = run / "metrics.jsonl"
    if not file.is_file() or not trainer.get("batch_size"):
        return None
    seconds, before = 0.0, 0
    for line in file.read_text().splitlines():
        try:
            found = json.loads(line)
            speed, step = found.get("images_per_second"), found["step"]
        except (ValueError, KeyError, AttributeError):
            continue
        if speed:
            seconds, before = seconds + (step - before) * trainer["batch_size"] / speed, step
    return f"{seconds / 60:.1f} minutes of steps" if seconds else None


def _evaluated(evaluation: Any) -> str:
    if evaluation is None:
        return ""
    rows = [f"| {m['name']} | {_number(m['value'])} | {_number(m.get('error'))} |" for m in evaluation["metrics"]]
    protocol = evaluation.get("protocol") or {}
    told = _listed({key: value for key, value in protocol.items() if not isinstance(value, dict | list)})
    return "\n".join(["| measure | value | error |", "|---|---|---|", *rows, "", told])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""
