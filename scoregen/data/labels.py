r"""The labels of the parts of a data set: refused where they are no classes of it, told where some are missing."""

from collections.abc import Mapping, Sequence

import torch

from scoregen.data.indexed import Dataset
from scoregen.data.parts import Name
from scoregen.errors import UserError, listed
from scoregen.parallel import say_once


def check_labels_of(
    parts: Mapping[Name, Dataset], name: str, classes: int | None, names: Sequence[str] | None = None
) -> None:
    r"""Refuses labels that are no classes; says which labels and classes a training misses.

    Args:
        parts: the parts of the data. name: of the data. classes: their number, None where labels are none. names: of
            the classes, or None.

    Raises:
        UserError: a label outside -1 .. classes - 1, where -1 is none.
    """
    for part in parts.values():
        if part.label is None or not len(part.label):
            continue
        low, high = (int(end) for end in part.label.aminmax())
        if low < -1 or (classes is not None and high >= classes):
            raise UserError(
                f"data: labels of {name} must be the numbers of its {classes} classes, from 0, or -1 for none, got "
                f"{low} to {high}. State num_classes={high + 1}, or number the classes from 0."
            )
    train = parts.get("train")
    if train is not None and train.label is not None:
        _tell_training(train.label, name, classes, names)


def tell_unlabelled(stored: Mapping[Name, Dataset], name: str, joined: bool) -> None:
    r"""Says which of the parts that are stored have no labels, where others have some.

    Args:
        stored: what the data have for each part. name: of the data. joined: whether all of it becomes one part.
    """
    bare = [part for part in stored if stored[part].label is None]
    if bare and len(bare) < len(stored):
        unused = " With data.test=all none are used." if joined else ""
        say_once(f"data: {name} has labels, but none for the {' and the '.join(bare)} part.{unused}")


def _tell_training(label: torch.Tensor, name: str, classes: int | None, names: Sequence[str] | None) -> None:
    r"""Says how many training samples have no label, and which classes have no samples."""
    if classes is None:
        say_once(f"data: {name} has labels and no num_classes, so that they are not used.")
        return
    if without := int((label < 0).sum()):
        say_once(f"data: {without:,} of {len(label):,} training samples of {name} have no label (-1).")
    counts = torch.bincount(label[label >= 0], minlength=classes)
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        shown = listed([f"'{names[k]}'" if names else str(k) for k in missing])
        remedy = " Number the classes from 0." if not names and missing[0] == 0 else ""
        say_once(
            f"data: {len(missing):,} of {classes:,} classes have no training samples, so they are not learned: {shown}."
            f"{remedy}"
        )
