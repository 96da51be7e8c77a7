r"""What a selector of dual smoothing should learn: of several sigmas the largest whose certificate is right."""

import itertools
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from scoregen.checks import one_of
from scoregen.errors import UserError
from scoregen.smoothing.results import Run, load

Rule = Literal["right", "radius"]
_SAME = {
    "indices": "inputs",
    "inputs": "inputs",
    "labels": "labels",
    "norm": "norm",
    "num_classes": "number of classes",
}


def best_sigma(runs: Sequence[str | Path], rule: Rule = "right") -> dict[int, int]:
    r"""For each input the run that should answer for it: the target of a selector.

    Inputs that no run certifies with the right label get 0, the smallest noise, which keeps most of the input.

    Args:
        runs: folders of certificates, one for each expert, in the experts' order and by increasing noise. Certify
            training images that the experts did not see: on those that they learnt, large noise looks too good.
        rule: "right": the last run whose certificate has the right label. "radius": of those with the right label the
            one with the largest radius, the last of equal ones.

    Returns:
        The place of the expert by the index of the input in its data set.

    Raises:
        UserError: an unknown rule, fewer than two runs, runs that are not finished, of other inputs or labels, or in
            another order.
        FileNotFoundError: a folder has no certificates.
    """
    one_of(typing.get_args(Rule), rule=rule)
    if len(runs) < 2:
        raise UserError(f"runs must be two or more, one for each expert, got {len(runs)}.")
    found = [load(folder) for folder in runs]
    _check(runs, found)
    inputs = zip(*(run.records for run in found), strict=True)
    return {records[0]["index"]: _best(records, rule) for records in inputs}


def _best(records: Sequence[Mapping[str, Any]], rule: Rule) -> int:
    r"""The place of the run that should answer for an input, from its certificates in all runs."""
    right = [(place, record) for place, record in enumerate(records) if record["predicted"] == record["label"]]
    return max(((record["radius"] if rule == "radius" else 0.0, place) for place, record in right), default=(0.0, 0))[1]


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
