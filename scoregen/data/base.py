r"""Data: index -> x_0 (B, *S) float32 in its own units (images in [0, 1]), label (B,) or None."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from scoregen.data.augment import Augmentation


class ArrayDataset:
    r"""Samples in memory; 8-bit images are kept as bytes and scaled when they are read.

    Args:
        x: (N, *S), uint8 (read as x/255) or float.
        label: (N,) or (N, 1) integers, or None.

    Raises:
        ValueError: other types, lengths that differ, values that are not finite.
    """

    def __init__(self, x: Tensor, label: Tensor | None = None) -> None:
        if x.dtype != torch.uint8 and not x.is_floating_point():
            raise ValueError(f"data must be uint8 (read as x/255) or float, got {x.dtype}; convert them.")
        if label is not None and label.ndim == 2 and label.shape[1] == 1:
            label = label[:, 0]
        if label is not None and (label.shape != (len(x),) or label.is_floating_point()):
            raise ValueError(
                f"there must be one integer label a sample, got {len(x)} samples and labels {tuple(label.shape)} "
                f"of {label.dtype}."
            )
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise ValueError(f"data must be finite, got {int((~x.isfinite()).sum())} values that are not.")
        self.x, self.label = x, None if label is None else label.long()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | slice | Sequence[int]) -> tuple[Tensor, Tensor | None]:
        x = self.x[index]
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        return x, None if self.label is None else self.label[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        r"""The whole batch at once, for a DataLoader without a collate function."""
        return self[torch.as_tensor(indices)]

    def fingerprint(self) -> str:
        r"""A hash of the content, for caches and protocols."""
        content = hashlib.sha256(str((tuple(self.x.shape), self.x.dtype)).encode())
        content.update(self.x.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]


class Source(ABC):
    r"""A named data set with a training and a test part.

    Args:
        augmentation: applied to training batches, or None.
    """

    name: str
    num_classes: int | None = None

    def __init__(self, augmentation: Augmentation | None = None) -> None:
        self.augmentation = augmentation

    @abstractmethod
    def load(self, train: bool) -> ArrayDataset:
        r"""Reads one part."""

    @cached_property
    def train(self) -> ArrayDataset:
        r"""The training part."""
        return self.load(train=True)

    @cached_property
    def test(self) -> ArrayDataset:
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
        raise ValueError(f"there must be at least 2 samples, one of them held out, got {count}.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    cut = count - max(1, round(held_out * count))
    return order[:cut] if train else order[cut:]
