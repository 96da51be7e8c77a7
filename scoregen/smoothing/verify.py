r"""Are these certificates what their counts prove? Everything is computed again from the counts in the files.

Noise and method stand in the header as they print themselves, so that the bounds, the radius and the label of each
record follow from its counts. Counts that were edited together with all that follows from them are not seen here:
certify again to see those.
"""

import ast
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scoregen import smoothing
from scoregen.errors import UserError
from scoregen.smoothing import methods, sequential, sequential_top_two
from scoregen.smoothing.certificate import ABSTAIN, Certificate, conclude
from scoregen.smoothing.dual import SELECTOR, joined, part_names
from scoregen.smoothing.header import radii
from scoregen.smoothing.methods import AbstractMethod, Tally
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.results import hash_of_labels, read_lines
from scoregen.smoothing.sequential import AbstractSequential

_NOISES = ("Gaussian", "AnisotropicGaussian", "Uniform", "Laplace", "LogNormal", "LogNormalGain", "LogNormalGamma")
_METHODS = {
    **dict.fromkeys(("Fixed", "SelectionFree", "TopTwo"), methods),
    **dict.fromkeys(("Stitched", "Ladder"), sequential),
    "LadderTopTwo": sequential_top_two,
}
# what a record says and what its counts prove, of each part that it consists of, with a name for it
Proofs = Callable[[Mapping[str, Any]], Iterable[tuple[str, Mapping[str, Any], Certificate]]]
_DERIVED = ("predicted", "radius", "p_lower", "p_upper", "candidate", "n", "draws")


def problems(folder: str | Path) -> list[str]:
    r"""What is wrong with the certificates of a folder, one line each; an empty list where nothing is.

    Args:
        folder: of `certify_dataset` or of the job certify.

    Raises:
        UserError: there are no certificates, or none that can be read.
    """
    files = sorted(Path(folder).glob("certificates*.jsonl"))
    found: list[str] = []
    header: dict[str, Any] | None = None
    records: list[tuple[str, dict[str, Any]]] = []
    for path in files:
        first, lines = read_lines(path)
        if header is not None and first is not None and first != header:
            found.append(f"{path.name}: its header is another job's")
        header = header or first
        records += [(f"{path.name}, line {number}", record) for number, record in lines]
    if header is None:
        raise UserError(f"verify: no certificates in '{folder}', which must hold certificates.jsonl.")
    try:
        proofs = _proofs(header)
        found += _misstated(header)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"verify: the header of '{folder}' is damaged ({type(error).__name__}: {error}).") from None
    for where, record in records:
        found += [f"{where}: {text}" for text in _wrong(record, header["indices"], proofs)]
    found += _counted([record["index"] for _, record in records], header["indices"])
    return [*found, *_relabelled({record["index"]: record.get("label") for _, record in records}, header)]


def _misstated(header: Mapping[str, Any]) -> Iterator[str]:
    r"""What a header says of the radii, and its noise and method say otherwise; the tables are made by it."""
    if "parts" in header:
        parts = header["parts"]
        for name, part in parts.items():
            yield from (text.replace("header: ", f"header: parts.{name}.", 1) for text in _misstated(part))
        right = {key: parts[SELECTOR][key] for key in ("norm", "radii", "reach")}
        right["step"] = min(part["step"] for part in parts.values())
    else:
        right = radii(_noise(header), _method(header))
        if "geometric_mean" in header["noise"]:  # its distance has the digest of all sigma, which are not at hand
            right["norm"] = header["norm"]
    for key, value in right.items():
        if not _close(header[key], value):
            yield f"header: {key} is {header[key]}, its noise and method say {value}"


def _close(given: Any, right: Any) -> bool:
    if isinstance(right, list):
        return isinstance(given, list) and len(given) == len(right) and all(map(_close, given, right))
    return bool(given == right) if right is None or isinstance(right, str) else _equal(given, right)


def _relabelled(labels: Mapping[int, Any], header: Mapping[str, Any]) -> Iterator[str]:
    r"""Labels that are not those of the job, of which the header has a hash; all of them are needed to know."""
    if labels.keys() != set(header["indices"]):
        return
    if hash_of_labels([labels[index] for index in header["indices"]]) != header.get("labels"):
        yield "labels: they are not those that were certified, or inputs were left out of the header"


def _counted(indices: list[int], wanted: list[int]) -> Iterator[str]:
    r"""Inputs that are missing, or there more than once."""
    doubled = sorted(index for index, times in Counter(indices).items() if times > 1)
    missing = sorted(set(wanted) - set(indices))
    for name, numbers in (("more than once", doubled), ("missing", missing)):
        if numbers:
            shown = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
            yield f"{len(numbers)} {'input is' if len(numbers) == 1 else 'inputs are'} {name}: {shown}"


def _wrong(record: Mapping[str, Any], indices: Sequence[int], proofs: Proofs) -> Iterator[str]:
    r"""What is wrong with one record."""
    name = f"input {record['index']}"
    if record["index"] not in set(indices):
        yield f"{name} is none of this job"
    try:
        proved = list(proofs(record))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        yield f"{name}: its counts are no counts of this method ({error})"
        return
    for of, given, certificate in proved:
        right = certificate.record()
        for key in _DERIVED:
            if not _equal(given.get(key), right[key]):
                yield f"{name}: {of}{key} is {given.get(key)}, its counts prove {right[key]}"


def _proofs(header: Mapping[str, Any]) -> Proofs:
    r"""What the counts of a record prove, by the noise and the method of a header."""
    if "parts" in header:
        return dual_proofs(header)
    noise, method, classes = _noise(header), _method(header), header["num_classes"]
    return lambda record: [("", record, conclude(_tally(record, classes, method), method, noise))]


def dual_proofs(header: Mapping[str, Any]) -> Proofs:
    r"""What the counts of a record of dual smoothing prove: of the selector, and of both parts together.

    Raises:
        UserError: the header's parts are not a selector and its experts, or each is not at half of alpha.
    """
    parts, alpha = header["parts"], header["alpha"]
    selector, *experts = (parts.get(name, {}) for name in part_names(len(parts) - 1))
    spent = [2 * part.get("alpha", math.nan) for part in (selector, *experts)]
    classes = {part.get("num_classes") for part in experts} | {header["num_classes"]}
    norms = {part.get("norm") for part in (selector, *experts)} | {header["norm"]}
    draws = {part.get("n") for part in experts} | {header["n"]}
    if (
        len(draws) > 1
        or selector.get("num_classes") != len(experts)
        or len(classes) > 1
        or len(norms) > 1
        or set(spent) != {alpha}
    ):
        raise UserError("verify: the header's parts are no selector and experts of one distance, each at alpha/2.")
    chooses, *answer = (_proofs(part) for part in (selector, *experts))

    def proofs(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], Certificate]]:
        ((_, own, chosen),) = chooses(record["selector"])
        expert = None if chosen.label == ABSTAIN else next(iter(answer[chosen.label](record)))[2]
        if expert is None and (any(record["counts"]) or record["path"] or record["selection"] is not None):
            raise ValueError("the selector abstains, and yet an expert has draws")
        return [("its selector's ", own, chosen), ("", record, joined(chosen, expert, alpha, header["num_classes"]))]

    return proofs


def _equal(given: Any, right: Any) -> bool:
    if isinstance(given, bool) or not isinstance(given, int | float):
        return False
    return given == right or math.isclose(given, right, rel_tol=1e-9)


def _tally(record: Mapping[str, Any], classes: int, method: AbstractMethod) -> Tally:
    r"""The counts of a record as the method saw them.

    Raises:
        ValueError: they are not such counts.
    """
    counts = _array(record["counts"], classes)
    selection = None if record["selection"] is None else _array(record["selection"], classes)
    n0 = getattr(method, "n0", None)
    if (selection is None) != (n0 is None):
        raise ValueError(f"the class was chosen by {record['selection']}, {n0=}")
    candidate, path = int(record["candidate"]), record["path"]
    looks = [_look(counts, candidate, *look) for look in path[:-1]]
    tally = Tally(selection, [*looks, counts])
    proved = [list(look) for look in method.path(tally)]
    if not path or path != proved:
        raise ValueError(f"path ends with {path[-1] if path else path}, counts are {counts.tolist()}")
    drawn = [look[0] for look in proved]
    allowed = method._schedule.tolist() if isinstance(method, AbstractSequential) else [method.n]
    if drawn != allowed[: len(drawn)] or any(min(np.subtract(b, a)) < 0 for a, b in itertools.pairwise(proved)):
        raise ValueError(f"looks after {drawn} draws")
    if (None if selection is None else int(selection.sum())) != n0:
        raise ValueError(f"the class was chosen by {record['selection']}, n0={n0}")
    return tally


def _look(counts: np.ndarray, candidate: int, drawn: int, agreed: int, second: int | None = None) -> np.ndarray:
    r"""An earlier look: only the count of the candidate is known, or that and the runner-up's, and only these are used.

    Raises:
        ValueError: there is no such look.
    """
    rest = drawn - agreed
    most, look = rest if second is None else second, np.zeros_like(counts)
    look[candidate] = agreed
    for k in np.delete(np.arange(len(counts)), candidate):
        look[k] = min(rest, most)
        rest -= look[k]
    if rest or min(look) < 0:
        raise ValueError(f"a look has {drawn} draws, {agreed} of the class" + f", {most} of another" * bool(second))
    return look


def _array(counts: Any, classes: int) -> np.ndarray:
    array = np.asarray(counts)
    if array.shape != (classes,) or array.dtype.kind != "i" or (array < 0).any():
        raise ValueError(f"counts must be {classes} whole numbers >= 0, got {counts}")
    return array


def _noise(header: Mapping[str, Any]) -> AbstractNoise:
    name, arguments = _call(header["noise"], _NOISES)
    if "geometric_mean" in arguments:  # of many sigma only that is known, and no radius depends on more
        return smoothing.Gaussian(arguments["geometric_mean"])
    noise: AbstractNoise = getattr(smoothing, name)(**arguments)
    return noise


def _method(header: Mapping[str, Any]) -> AbstractMethod:
    name, arguments = _call(header["method"], _METHODS)
    method: AbstractMethod = getattr(_METHODS[name], name)(**arguments)
    if (method.n, method.alpha) != (header["n"], header["alpha"]):
        raise UserError(f"verify: the header says n={header['n']}, alpha={header['alpha']}, its method {method!r}.")
    return method


def _call(text: Any, known: Any) -> tuple[str, dict[str, Any]]:
    r"""Name and arguments of a call in text, `Gaussian(sigma=0.5)`; nothing is run."""
    try:
        (statement,) = ast.parse(text).body
        call: Any = statement.value
        name, arguments = call.func.id, {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    except (ValueError, SyntaxError, AttributeError, TypeError, RecursionError, MemoryError):
        name, arguments = None, {}
    if name not in known:
        raise UserError(f"verify: the header names {text!r:.200}, which is no noise or method of this package.")
    return name, arguments


def verify(folder: str | Path) -> int:
    r"""Prints what is wrong with the certificates of a folder; the exit status, 0 where nothing is."""
    found = problems(folder)
    for line in found:
        print(line)
    print(
        f"{len(found)} problems in '{folder}'" if found else f"every certificate of '{folder}' follows from its counts"
    )
    return int(bool(found))
