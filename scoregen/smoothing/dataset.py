r"""Certifying a data set: sharded over processes, resumable, with a progress bar."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from scoregen.parallel import barrier, gather, shard, world_size
from scoregen.progress import progress
from scoregen.smoothing.methods import AbstractMethod, whole
from scoregen.smoothing.results import Results, Run, fingerprint, load
from scoregen.smoothing.sequential import Ladder
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier

_KNOWN_BY = 32  # inputs whose answers tell one classifier from another


def every_kth(size: int, count: int | None) -> list[int]:
    r"""`count` indices evenly spread over a data set: the first ones of a sorted set would be few classes."""
    if count is None or whole("max_inputs", count) >= size:
        return list(range(size))
    return [i * size // count for i in range(count)]


def certify_dataset(
    g: SmoothedClassifier,
    data: Sequence[tuple[Tensor, Any]],
    indices: Sequence[int],
    method: AbstractMethod,
    seed: int,
    out: str | Path,
    description: Mapping[str, Any] | None = None,
) -> Run:
    r"""Certifies inputs of a labelled data set and keeps the results in a folder.

    What the folder already holds of the same job is not done again.

    Args:
        g: the smoothed classifier.
        data: data[i] -> (x, label).
        indices: which inputs.
        method: how many draws and what they prove (`make_method`).
        seed: of the noise.
        out: the folder.
        description: further facts for the header (names of the data and the model).

    Returns:
        All results of the folder, once every process has finished.

    Raises:
        ValueError: when the folder holds another job, or the classifier is no function of one input.
    """
    if not len(indices) or len(set(indices)) < len(indices):
        raise ValueError(f"indices must hold one or more different numbers, got {list(indices)[:10]}.")
    g.require_function(data[indices[0]][0])
    header = _header(g, data, indices, method, seed, dict(description or {}))
    with Results(out, header) as results:
        left = gather([i for i in indices if i not in results.done])[0]  # the same for all processes
        todo = shard(left)
        done = (len(indices) - len(left)) // world_size()
        with progress(total=done + len(todo), initial=done, description="certifying", unit="input") as bar:
            score = _Score([record["predicted"] == record["label"] for record in results.done.values()])
            labels: dict[int, int] = {}
            for index, certificate in g.stream(_inputs(data, todo, labels), method, seed):
                record = {"index": index, "label": labels.pop(index), **certificate.record()}
                results.append(record)
                bar.update()
                bar.set_postfix_str(score.add(record["predicted"] == record["label"]))
    barrier()
    return load(out)


def _header(
    g: SmoothedClassifier,
    data: Sequence,
    indices: Sequence[int],
    method: AbstractMethod,
    seed: int,
    description: dict[str, Any],
) -> dict[str, Any]:
    r"""What the job is: two jobs are the same where all of it is."""
    return {
        "classifier": fingerprint(g.classifier),
        "answers": g.answers([(indices[i], data[indices[i]][0]) for i in every_kth(len(indices), _KNOWN_BY)]),
        "noise": repr(g.noise),
        "norm": g.noise.distance,
        "step": g.noise.step,
        "radii": _rungs(g, method),
        "reach": None if (p := method.sufficient) is None else round(g.noise.radius(p, 1.0 - p), 9),
        "method": repr(method),
        "alpha": method.alpha,
        "n": method.n,
        "num_classes": g.num_classes,
        "strict": g.strict,
        "precision": str(g.precision),
        "seed": seed,
        "description": description,
        "indices": list(indices),
    }


def _rungs(g: SmoothedClassifier, method: AbstractMethod) -> list[float] | None:
    r"""The radii that the method asks for, where it asks for more than one."""
    if not isinstance(method, Ladder):
        return None
    return [round(g.noise.radius(p, 1.0 - p), 9) for p in method.targets]


def _inputs(data: Sequence, indices: Sequence[int], labels: dict[int, int]) -> Iterator[tuple[int, Tensor]]:
    for index in indices:
        x, labels[index] = data[index][0], int(data[index][1])
        yield index, x


class _Score:
    def __init__(self, correct: list[bool]) -> None:
        self.correct, self.total = sum(correct), len(correct)

    def add(self, correct: bool) -> str:
        self.correct, self.total = self.correct + correct, self.total + 1
        return f"certified accuracy {self.correct / self.total:.1%}"
