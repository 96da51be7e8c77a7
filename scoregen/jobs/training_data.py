r"""Whether data are those that a classifier knows: its units, and the order of its classes."""

from collections.abc import Sequence

from scoregen.data import Source, identity
from scoregen.errors import UserError, listed
from scoregen.jobs.conditioning import find_checkpoint, known_of


def check_units(checkpoint: str, source: Source) -> None:
    r"""Refuses data in other units than those that a classifier was trained on, which it would take for its own.

    Args:
        checkpoint: of the classifier, or a run folder.

    Raises:
        UserError: both ranges are known, and they differ.
    """
    from scoregen.loading import describe

    place = find_checkpoint(checkpoint)
    config = describe(place)
    if config.get("dataset") is None:
        return
    trained, found = identity.known(config, f"'{place}'").range, source.range
    if trained is not None and found is not None and trained != found:
        raise UserError(
            f"data.range: the classifier of '{checkpoint}' was trained on values in {list(trained)}, {source.name} has "
            f"{list(found)}. Give data in its units, or say theirs: data.range=[{trained[0]:g},{trained[1]:g}]."
        )


def names_of(checkpoint: str) -> list[str]:
    r"""The names of the classes of a classifier trained here, by their numbers; none where they are not known."""
    return list(known_of(find_checkpoint(checkpoint)).classes or ())


def check_names(known: Sequence[str], source: Source, count: int) -> list[str]:
    r"""A line where the names of the classes of labelled data are not those of a classifier: they go by number.

    Args:
        known: names of the classes of the classifier; empty where it has none. count: of its classes.

    Raises:
        UserError: a name stands for different numbers in both, so that right answers would count as wrong.
    """
    have = list(source.class_names or ())
    if not known:
        return _by_number(have, source, count)
    if not have or have == list(known[: len(have)]):
        return []
    there = {name: k for k, name in enumerate(known)}
    moved = [(name, k, there[name]) for k, name in enumerate(have) if there.get(name, k) != k]
    if moved:
        name, here, other = moved[0]
        raise UserError(
            f"data: '{name}' is class {here} of {source.name}, but class {other} of the classifier, so right answers "
            f"would count as wrong: {source.name} has {listed(have)}, the classifier {listed(known)}. Give the "
            "training data as data.path=FOLDER and these as data.test=FOLDER, which finds classes by their names."
        )
    return [
        f"classes: by number, as their names differ: {source.name} has {listed(have)}, the classifier {listed(known)}"
    ]


def _by_number(have: Sequence[str], source: Source, count: int) -> list[str]:
    r"""A line about a classifier without names: which of its outputs each class of the data is held against."""
    pairs = f": {listed([f'{k} {name}' for k, name in enumerate(have)])}" if have else ""
    more = f"; it has {count:,} classes, {source.name} has {source.num_classes}" if count != source.num_classes else ""
    return [f"classes: by number, as the classifier names none{pairs}{more}"] if pairs or more else []
