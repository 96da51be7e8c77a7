r"""What a selector of dual smoothing should learn: of several sigmas the largest whose certificate is right."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from scoregen.errors import UserError
from scoregen.smoothing.results import Run, load

_SAME = {
    "indices": "inputs",
    "inputs": "inputs",
    "labels": "labels",
    "norm": "norm",
    "num_classes": "number of classes",
}


def best_sigma(runs: Sequence[str | Path]) -> dict[int, int]:
    r"""For each input the last run whose certificate has the right label: the target of a selector.

    Inputs that no run certifies with the right label get 0, the smallest noise, which keeps most of the input.

    Args:
        runs: folders of certificates, one for each expert, in the experts' order and by increasing noise. Certify
            training images that the experts did not see: on those that they learnt, large noise looks too good.

    Returns:
        The place of the expert by the index of the input in its data set.

    Raises:
        UserError: fewer than two runs, runs that are not finished, of other inputs or labels, or in another order.
        FileNotFoundError: a folder has no certificates.
    """
    if len(runs) < 2:
        raise UserError(f"runs must be two or more, one for each expert, got {len(runs)}.")
    found = [load(folder) for folder in runs]
    _check(runs, found)
    right = [{r["index"]: r["predicted"] == r["label"] for r in run.records} for run in found]
    return {
        index: max((place for place, known in enumerate(right) if known[index]), default=0)
        for index in found[0].header["indices"]
    }


def _check(folders: Sequence[str | Path], runs: Sequence[Run]) -> None:
    for folder, run in zip(folders, runs, strict=True):
        if not run.complete:
            raise UserError(
                f"runs: '{folder}' has {len(run.records)} of {len(run.header['indices'])} certificates. "
                "Finish it by its command."
            )
        for key, name in _SAME.items():
            if run.header[key] != runs[0].header[key]:
                raise UserError(f"runs: must have the same {name}, got others in '{folder}' than in '{folders[0]}'.")
    sizes = [run.header["step"] for run in runs]
    if any(a >= b for a, b in itertools.pairwise(sizes)):
        noises = ", ".join(run.header["noise"] for run in runs)
        raise UserError(f"runs: must come by increasing noise, as the experts do, got {noises}.")
