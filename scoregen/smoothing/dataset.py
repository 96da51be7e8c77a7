r"""Certifying or predicting a data set: sharded over processes, resumable, with a progress bar."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from scoregen.checks import whole
from scoregen.data.pictures import spread
from scoregen.interruption import check_folder, end_if_asked
from scoregen.parallel import barrier, gather, shard, world_size
from scoregen.progress import progress
from scoregen.smoothing.bounds import percent
from scoregen.smoothing.certificate import ABSTAIN
from scoregen.smoothing.guard import KNOWN_BY, NotAFunction
from scoregen.smoothing.methods import AbstractMethod
from scoregen.smoothing.results import Results, Run, hash_of_labels, hashed, load
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier

Record = dict[str, Any]


class Data(Protocol):
    r"""data[i] -> (x (*S), anything)."""

    def __getitem__(self, i: int, /) -> tuple[Tensor, Any]:
        r"""An input, and what comes with it."""
        ...


class LabelledData(Protocol):
    r"""data[i] -> (x (*S), label), as a list or a data set has it."""

    def __getitem__(self, i: int, /) -> tuple[Tensor, Any]:
        r"""An input and its label."""
        ...


def every_kth(size: int, count: int | None) -> list[int]:
    r"""`count` indices evenly spread over a data set; the first ones of a sorted set would miss classes."""
    if count is not None:
        whole(1, max_inputs=count)
    return spread(size, size if count is None else count)


def certify_dataset(
    g: SmoothedClassifier,
    data: LabelledData,
    indices: Sequence[int],
    method: AbstractMethod,
    out: str | Path,
    *,
    seed: int,
    description: Mapping[str, Any] | None = None,
) -> Run:
    r"""Certifies inputs of a labelled data set into a folder, or resumes there.

    Args:
        g: the smoothed classifier.
        data: data[i] -> (x, label).
        indices: of the inputs.
        method: rule for drawing and bounding (`make_method`).
        out: the folder.
        seed: seed of the noise.
        description: further facts for the header (names of the data and the model).

    Returns:
        All results of the folder, once every process has finished.

    Raises:
        ValueError: the folder holds another job, or the classifier is no function of one input. If that is found
            during the run or at its end, the certificates are set aside under another name.
    """
    known = _examined(g, data, indices)
    labelled = {"labels": labels_hash(data, indices)}
    header = _header(g, indices, known, method, seed=seed, description=description, labelled=labelled)

    def certified(todo: Sequence[int]) -> Iterator[Record]:
        labels: dict[int, int] = {}
        for index, certificate in g.stream(_inputs(data, todo, labels), method, seed):
            yield {"index": index, "label": labels.pop(index), **certificate.record()}

    with Results(out, header) as results:
        work_through(results, indices, certified, "certifying", "certified accuracy", _correct)
    barrier()
    return load(out)


def predict_dataset(
    g: SmoothedClassifier,
    data: Data,
    indices: Sequence[int],
    vote: AbstractMethod,
    out: str | Path,
    *,
    seed: int,
    description: Mapping[str, Any] | None = None,
    names: Callable[[int], str | None] = lambda index: None,
) -> Run:
    r"""Predicts inputs of a data set into a folder, or resumes there; other arguments and errors as `certify_dataset`.

    Args:
        data: data[i] -> (x, ...).
        vote: rule of the prediction (`make_vote`).
        names: of an input by its index, for its record.
    """
    known = _examined(g, data, indices)
    header = _header(g, indices, known, vote, seed=seed, description=description)

    def predicted(todo: Sequence[int]) -> Iterator[Record]:
        for index, found in g.predictions(((i, data[i][0]) for i in todo), vote, seed):
            yield {"index": index, "file": names(index), **found.record()}

    with Results(out, header, "predictions") as results:
        work_through(results, indices, predicted, "predicting", "labels", lambda record: record["predicted"] != ABSTAIN)
    barrier()
    return load(out, "predictions")


def _examined(g: SmoothedClassifier, data: Data, indices: Sequence[int]) -> list[tuple[int, Tensor]]:
    r"""Inputs that tell classifiers apart, once the classifier was asked about them.

    Raises:
        ValueError: the indices are none, or not different.
    """
    if not len(indices) or len(set(indices)) < len(indices):
        raise ValueError(f"indices must hold one or more different numbers, got {list(indices)[:10]}.")
    known = known_inputs(data, indices)
    g.examine(known)
    return known


def _header(
    g: SmoothedClassifier,
    indices: Sequence[int],
    known: Sequence[tuple[int, Tensor]],
    method: AbstractMethod,
    *,
    seed: int,
    description: Mapping[str, Any] | None,
    labelled: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "description": dict(description or {}),
        "seed": seed,
        "indices": list(indices),
        **(labelled or {}),
        "inputs": inputs_hash(known),
        **g.header(method, known),
    }


def work_through(
    results: Results,
    indices: Sequence[int],
    work: Callable[[Sequence[int]], Iterator[Record]],
    doing: str,
    counted: str,
    counts: Callable[[Record], bool],
) -> None:
    r"""Does this process's share of what is left, and appends each record as it comes.

    Args:
        results: opened. indices: of all inputs.
        work: the records of some inputs.
        doing: what the bar says. counted, counts: what it counts, and whether a record counts.

    Raises:
        UserError: the classifier is no function of one input; the results are set aside.
    """
    left = gather([i for i in indices if i not in results.done])[0]  # the same for all processes
    todo = shard(left)
    done = (len(indices) - len(left)) // world_size()
    with progress(total=done + len(todo), initial=done, description=doing, unit="input") as bar:
        score = _Score(counted, [counts(record) for record in results.done.values()])
        try:
            for record in work(todo):
                check_folder()
                results.append(record)
                bar.update()
                bar.set_postfix_str(score.add(counts(record)))
                end_if_asked()
        except NotAFunction as error:
            raise results.refused(str(error)) from error


def _correct(record: Record) -> bool:
    return bool(record["predicted"] == record["label"])


def _inputs(data: LabelledData, indices: Sequence[int], labels: dict[int, int]) -> Iterator[tuple[int, Tensor]]:
    for index in indices:
        x, labels[index] = data[index][0], int(data[index][1])
        yield index, x


def known_inputs(data: LabelledData, indices: Sequence[int]) -> list[tuple[int, Tensor]]:
    r"""The inputs that data are known by, evenly spread: (index, x (*S))."""
    return [(indices[i], data[indices[i]][0]) for i in every_kth(len(indices), KNOWN_BY)]


def inputs_hash(known: Sequence[tuple[int, Tensor]]) -> str:
    r"""A hash of inputs (index, x (*S))."""
    return hashed(b"".join(x.cpu().numpy().tobytes() for _, x in known))


def labels_hash(data: LabelledData, indices: Sequence[int]) -> str:
    r"""A hash of the labels of the inputs; of data that have all labels at hand no input is read."""
    labels = getattr(data, "label", None)
    return hash_of_labels([int(data[i][1] if labels is None else labels[i]) for i in indices])


class _Score:
    r"""The share of the records so far that count, for the progress bar."""

    def __init__(self, name: str, counted: list[bool]) -> None:
        self.name, self.counted, self.total = name, sum(counted), len(counted)

    def add(self, counted: bool) -> str:
        self.counted, self.total = self.counted + counted, self.total + 1
        return f"{self.name} {percent(self.counted / self.total)} %"
