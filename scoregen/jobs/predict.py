r"""Prediction: labels of a smoothed classifier for pictures or other data, each right with a stated probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from scoregen.data.indexed import Dataset, Joined, Subset
from scoregen.data.pictures import Pictures
from scoregen.errors import UserError
from scoregen.jobs.certifying import user_errors
from scoregen.jobs.job import Plan
from scoregen.jobs.one_classifier import OneClassifierJob

COLUMNS = ("index", "file", "label", "name", "candidate", "share", "n")


@dataclass(frozen=True, kw_only=True)
class Predict(OneClassifierJob):
    r"""Predicts labels with a smoothed classifier, or abstains; keys as in conf/predict.yaml.

    Args:
        data: its test part is predicted; the root in conf/ asks for all of the data (data.test=all).
        method: "sequential" looks after 32, 64, 128, ... draws, "fixed" after all n.
        n: draws for an input (sequential: at most).
        class_names: names of the classes; None: those of the checkpoint or of transformers, where they are known.
        **others: those of `OneClassifierJob`.
    """

    known: ClassVar = ("predictions.jsonl", "predictions.csv")
    free: ClassVar = (*OneClassifierJob.free, "class_names")
    needs_labels: ClassVar[bool] = False
    n: int = 1000
    method: Literal["sequential", "fixed"] = "sequential"
    class_names: list[str] | None = None

    def plan(self, out: Path) -> Plan:
        from scoregen import parallel
        from scoregen.smoothing.prediction import make_vote

        with user_errors():
            g, told = self.smoothed(parallel.device())
            vote = make_vote(self.method, self.n, self.alpha)
        names = self._names(g)
        indices, description = range(len(self.data.test)), self.description()

        def work() -> None:
            with user_errors():
                self._predict(g, vote, names, description, out)

        lines = [
            f"data: {self.data.name}; predicting {self.data.told('test', len(indices))}",
            *told,
            f"noise: {self.noise!r}; method: {vote!r}",
            f"classes: {g.num_classes}, " + (", ".join(names[:10]) if names else "without names"),
            f"out: {out}",
        ]
        return Plan(work, lines, description)

    def _names(self, g: Any) -> list[str]:
        r"""The names of the classes, none where they are not known."""
        names = self.names(g.classifier) if self.class_names is None else self.class_names
        if names and len(names) != g.num_classes:
            where = "class_names" if self.class_names is not None else "checkpoint"
            raise UserError(f"{where}: must name {g.num_classes} classes, got {len(names)}. Give one name for each.")
        return names

    def _predict(self, g: Any, vote: Any, names: Sequence[str], description: dict[str, Any], out: Path) -> None:
        from scoregen import parallel
        from scoregen.smoothing.dataset import predict_dataset

        data = self.inputs()
        run = predict_dataset(
            g, data, range(len(data)), vote, out, seed=self.seed, description=description, names=self._file
        )
        if not run.complete:
            raise UserError(
                f"out: '{out}' has {len(run.records)} of {len(data)} predictions after all processes ended. It must be "
                "a folder that they share."
            )
        if parallel.rank() == 0:
            _write(run.records, names, out)

    def _file(self, index: int) -> str | None:
        return file_of(self.data.test, index, Path(getattr(self.data, "path", ".")))


def file_of(part: Dataset, index: int, folder: Path) -> str | None:
    r"""The file of a picture, by its name in a folder; None of what is no file of its own."""
    if isinstance(part, Subset):
        return file_of(part.whole, int(part.chosen[index]), folder)
    if isinstance(part, Joined):
        for piece in part.pieces:
            if index < len(piece):
                return file_of(piece, index, folder)
            index -= len(piece)
    picture = part.picture(index) if isinstance(part, Pictures) else None
    if not isinstance(picture, Path):
        return None
    return str(picture.relative_to(folder)) if picture.is_relative_to(folder) else str(picture)


def _write(records: Sequence[dict[str, Any]], names: Sequence[str], out: Path) -> None:
    import csv
    import io

    from scoregen.smoothing.certificate import ABSTAIN
    from scoregen.storage import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        label, candidate, n = (record[key] for key in ("predicted", "candidate", "n"))
        name = names[label] if names and label != ABSTAIN else ""
        share = f"{record['counts'][candidate] / n:.6g}"
        writer.writerow([record["index"], record["file"] or "", label, name, candidate, share, n])
    write_text(out / "predictions.csv", text.getvalue())
    sure = sum(record["predicted"] != ABSTAIN for record in records)
    draws = sum(record["n"] for record in records) / len(records)
    print(f"{sure:,} of {len(records):,} inputs have a label; {draws:,.0f} draws an input")
    print(f"\n{out / 'predictions.csv'}")
