r"""Data: index -> x_0 (B, *S) float32 in its own units (images in [0, 1]), label (B,) or None."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from scoregen.data.augment import Augmentation
from scoregen.data.files import as_fraction

Index = int | slice | Sequence[int] | Tensor


class Dataset(ABC):
    r"""One part of a source: samples by index, in memory or read when they are used.

    Attributes:
        label: (N,) integers, or None.
    """

    label: Tensor | None

    @property
    @abstractmethod
    def x(self) -> Tensor:
        r"""All samples (N, *S) in memory as they are stored: bytes (which stand for x/255) or floats."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor | None]:
        r"""Sample(s) x_0 (*S) or (B, *S), float32 in the units of the source, and their labels or None."""

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        r"""The whole batch at once, for a DataLoader without a collate function."""
        return self[torch.as_tensor(indices)]

    @abstractmethod
    def fingerprint(self) -> str:
        r"""A hash of the content, for caches and records."""


class ArrayDataset(Dataset):
    r"""Samples in memory; 8-bit images are kept as bytes and scaled when they are read.

    Args:
        x: (N, *S), uint8 (read as x/255) or float.
        label: (N,) or (N, 1) integers, or None.

    Raises:
        ValueError: other types, lengths that differ, values that are not finite.
    """

    def __init__(self, x: Tensor, label: Tensor | None = None) -> None:
        if x.dtype != torch.uint8 and not x.is_floating_point():
            raise ValueError(f"data must be uint8 (read as x/255) or float, got {x.dtype}. Convert them.")
        if label is not None and label.ndim == 2 and label.shape[1] == 1:
            label = label[:, 0]
        if label is not None and (label.shape != (len(x),) or label.is_floating_point()):
            raise ValueError(
                f"there must be one integer label for each sample, got {len(x)} samples and labels "
                f"{tuple(label.shape)} of {label.dtype}."
            )
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise ValueError(f"data must be finite, got {int((~x.isfinite()).sum())} values that are not.")
        self._x, self.label = x, None if label is None else label.long()

    @property
    def x(self) -> Tensor:
        return self._x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor | None]:
        return as_fraction(self.x[index]), None if self.label is None else self.label[index]

    def fingerprint(self) -> str:
        content = hashlib.sha256(str((tuple(self.x.shape), self.x.dtype)).encode())
        content.update(self.x.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]


class Source(ABC):
    r"""A named data set with a training and a test part.

        A source states what its data are, never which model or chart suits them.

    Args:
        augmentation: applied to training batches, or None.

    Attributes:
        name: of the data, for records and messages.
        range: the lowest and the highest value that the units of the data allow: (0.0, 1.0) for images, (0.0, inf)
            for strictly positive measurements; None for unbounded vectors, or where nothing is known.
        num_classes: number of classes, None where labels are missing or are no classes (captions).
    """

    name: str
    num_classes: int | None = None

    def __init__(self, augmentation: Augmentation | None = None) -> None:
        self.augmentation = augmentation

    @property
    @abstractmethod
    def range(self) -> tuple[float, float] | None:
        r"""The lowest and the highest value that the units of the data allow; state it as a class attribute."""

    @abstractmethod
    def load(self, train: bool) -> Dataset:
        r"""Reads one part; called once for each."""

    @cached_property
    def train(self) -> Dataset:
        r"""The training part."""
        return self.load(train=True)

    @cached_property
    def test(self) -> Dataset:
        r"""The held-out part."""
        return self.load(train=False)

    @property
    def shape(self) -> tuple[int, ...]:
        r"""Shape of one sample, (*S)."""
        return tuple(self.train[0][0].shape)


def split(x: Tensor, label: Tensor | None, train: bool, held_out: float = 0.1, seed: int = 0) -> ArrayDataset:
    r"""One part of data that come without a split: a fixed permutation, the last fraction held out."""
    part = part_of(len(x), train, held_out, seed)
    return ArrayDataset(x[part], None if label is None else label[part])


def part_of(count: int, train: bool, held_out: float = 0.1, seed: int = 0) -> Tensor:
    r"""The indices of one part of `count` samples that come without a split."""
    if count < 2:
        raise ValueError(f"there must be at least 2 samples, so that one can be held out, got {count}.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    cut = count - max(1, round(held_out * count))
    return order[:cut] if train else order[cut:]
