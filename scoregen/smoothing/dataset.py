r"""Certifying a data set: sharded over processes, resumable, with a progress bar."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from scoregen.checks import whole
from scoregen.interruption import check_folder, end_if_asked
from scoregen.parallel import barrier, gather, shard, world_size
from scoregen.progress import progress
from scoregen.smoothing.bounds import percent
from scoregen.smoothing.guard import KNOWN_BY, NotAFunction
from scoregen.smoothing.methods import AbstractMethod
from scoregen.smoothing.results import Results, Run, hashed, load
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier


class LabelledData(Protocol):
    r"""data[i] -> (x (*S), label), as a list or a data set has it."""

    def __getitem__(self, i: int, /) -> tuple[Tensor, Any]:
        r"""An input and its label."""
        ...


def every_kth(size: int, count: int | None) -> list[int]:
    r"""`count` indices evenly spread over a data set; the first ones of a sorted set would miss classes."""
    if count is not None:
        whole(1, max_inputs=count)
    if count is None or count >= size:
        return list(range(size))
    return [i * size // count for i in range(count)]


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
        seed: of the noise.
        description: further facts for the header (names of the data and the model).

    Returns:
        All results of the folder, once every process has finished.

    Raises:
        ValueError: the folder holds another job, or the classifier is no function of one input. If that is found
            during the run or at its end, the certificates are set aside under another name.
    """
    if not len(indices) or len(set(indices)) < len(indices):
        raise ValueError(f"indices must hold one or more different numbers, got {list(indices)[:10]}.")
    known = [(indices[i], data[indices[i]][0]) for i in every_kth(len(indices), KNOWN_BY)]
    g.examine(known)
    header = {
        "description": dict(description or {}),
        "seed": seed,
        "indices": list(indices),
        "labels": labels_hash(data, indices),
        "inputs": hashed(b"".join(x.cpu().numpy().tobytes() for _, x in known)),
        **g.header(method, known),
    }
    with Results(out, header) as results:
        try:
            _certify_into(results, g, data, indices, method, seed)
        except NotAFunction as error:
            raise results.refused(str(error)) from error
    barrier()
    return load(out)


def _certify_into(
    results: Results,
    g: SmoothedClassifier,
    data: LabelledData,
    indices: Sequence[int],
    method: AbstractMethod,
    seed: int,
) -> None:
    r"""Certifies this process's share of what is left."""
    left = gather([i for i in indices if i not in results.done])[0]  # the same for all processes
    todo = shard(left)
    done = (len(indices) - len(left)) // world_size()
    with progress(total=done + len(todo), initial=done, description="certifying", unit="input") as bar:
        score = _Score([record["predicted"] == record["label"] for record in results.done.values()])
        labels: dict[int, int] = {}
        for index, certificate in g.stream(_inputs(data, todo, labels), method, seed):
            record = {"index": index, "label": labels.pop(index), **certificate.record()}
            check_folder()
            results.append(record)
            bar.update()
            bar.set_postfix_str(score.add(record["predicted"] == record["label"]))
            end_if_asked()


def _inputs(data: LabelledData, indices: Sequence[int], labels: dict[int, int]) -> Iterator[tuple[int, Tensor]]:
    for index in indices:
        x, labels[index] = data[index][0], int(data[index][1])
        yield index, x


def labels_hash(data: LabelledData, indices: Sequence[int]) -> str:
    r"""A hash of the labels of the inputs; of data that have all labels at hand no input is read."""
    labels = getattr(data, "label", None)
    known = [int(data[i][1] if labels is None else labels[i]) for i in indices]
    return hashed(json.dumps(known).encode())


class _Score:
    r"""Certified accuracy so far, for the progress bar."""

    def __init__(self, correct: list[bool]) -> None:
        self.correct, self.total = sum(correct), len(correct)

    def add(self, correct: bool) -> str:
        self.correct, self.total = self.correct + correct, self.total + 1
        return f"certified accuracy {percent(self.correct / self.total)} %"
