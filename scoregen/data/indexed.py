r"""Data sets: samples by index, as they are stored, in memory or read when they are used.

Bytes stay bytes until they are on the device: `part.units` takes them to the units of the source there. Nothing else
reaches into a data set, so it may be in memory, mapped from a file, or read when it is used.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from scoregen.data import identity
from scoregen.data.units import UNIT as UNIT
from scoregen.data.units import Range as Range
from scoregen.data.units import in_range

Index = int | slice | Sequence[int] | Tensor


class Dataset(ABC):
    r"""One part of a source: samples by index, in memory or read when they are used.

    Attributes:
        label: (N,) integers, or None; known without reading a sample.
        range: the units of bytes: what 0 and what 255 stand for.
        decodes: whether reading a sample takes more time than a copy, so that other processes should do it.
    """

    label: Tensor | None
    range: Range = UNIT
    decodes: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor | None]:
        r"""Sample(s) x (*S) or (B, *S), uint8 or float32, and their labels or None; `units` makes them x_0."""

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        r"""The whole batch at once, for a DataLoader without a collate function."""
        return self[torch.as_tensor(indices)]

    def units(self, x: Tensor) -> Tensor:
        r"""Samples as they are stored, in the units of the source, float32, where they are: on a device or not.

        Bytes 0 to 255 go to the range; floats are in these units. Complex data stay complex.
        """
        if x.dtype != torch.uint8:
            return x if x.is_complex() else x.float()
        return in_range(x.float().div_(255), self.range)  # in place: the copy is our own

    def in_units(self, index: Index) -> tuple[Tensor, Tensor | None]:
        r"""Sample(s) x_0 (*S) or (B, *S), float32 in the units of the source, and their labels or None."""
        x, label = self[index]
        return self.units(x), label

    @property
    def shape(self) -> tuple[int, ...]:
        r"""Shape of one sample, (*S)."""
        return tuple(self[0][0].shape)

    @property
    def x(self) -> Tensor:
        r"""All samples (N, *S) as they are stored."""
        return self[:][0]

    @abstractmethod
    def fingerprint(self) -> str:
        r"""16 hexadecimal digits that change with the content, for caches and records; not with where the data lie."""

    def entries(self) -> identity.Entries:
        r"""What tells these data from others, by the names of their files where they have some (`identity`)."""
        yield f"samples{identity.NO_FILE}", f"{len(self)} {self.fingerprint()}"


class ArrayDataset(Dataset):
    r"""Samples in memory, as bytes or floats.

    Args:
        x: (N, *S), uint8 or float.
        label: (N,) or (N, 1) integers, or None.
        range: what the bytes 0 and 255 stand for.

    Attributes:
        stored: the samples (N, *S) as they were given.

    Raises:
        ValueError: other types, lengths that differ, values that are not finite.
    """

    def __init__(self, x: Tensor, label: Tensor | None = None, range: Range = UNIT) -> None:
        if not isinstance(x, Tensor) or not isinstance(label, Tensor | None):
            raise ValueError(
                f"data and labels must be tensors, got {type(x).__name__} and {type(label).__name__}. Give "
                "torch.from_numpy(x)."
            )
        x = x.detach()
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
        self.stored, self.label, self.range = x, None if label is None else label.long(), range

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor | None]:
        x = rows(self.stored, index)
        return x if x.dtype == torch.uint8 else x.float(), None if self.label is None else self.label[index]

    def fingerprint(self) -> str:
        content = hashlib.sha256(str((tuple(self.stored.shape), self.stored.dtype)).encode())
        content.update(self.stored.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]


def rows(x: Tensor, index: Index) -> Tensor:
    r"""x[index]; by copies of whole rows where it can be, in a tenth of the time."""
    whole = isinstance(index, Tensor) and index.ndim == 1 and index.dtype == torch.int64 and x.is_contiguous()
    if not isinstance(index, Tensor) or not whole or not len(index) or int(index.min()) < 0:
        return x[index]
    # an accelerator takes a batch from pinned memory without a wait; processes that read have no accelerator
    pinned = get_worker_info() is None and torch.accelerator.is_available()
    found = torch.empty((len(index), *x.shape[1:]), dtype=x.dtype, pin_memory=pinned)
    return torch.index_select(x, 0, index, out=found)


class LazyDataset(Dataset):
    r"""Samples that are read when they are used; a subclass says how several of them are read."""

    @abstractmethod
    def read(self, places: list[int]) -> Tensor:
        r"""The samples (B, *S) of these numbers, each from 0 to N - 1; uint8, or float32 in the units of the source."""

    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor | None]:
        chosen = places_of(index, len(self))
        x = self.read(chosen.reshape(-1).tolist())
        return (x if chosen.ndim else x[0]), None if self.label is None else self.label[chosen]


class Subset(Dataset):
    r"""Some samples of a data set, in an order of its own, without a copy.

    Args:
        whole: the data set.
        chosen: (N,) the numbers of the samples in it.
    """

    def __init__(self, whole: Dataset, chosen: Tensor) -> None:
        self.whole, self.chosen, self.range, self.decodes = whole, chosen, whole.range, whole.decodes
        self.label = None if whole.label is None else whole.label[chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor | None]:
        return self.whole[self.chosen[index]]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole.shape

    def fingerprint(self) -> str:
        content = hashlib.sha256(self.whole.fingerprint().encode())
        content.update(self.chosen.numpy().tobytes())
        return content.hexdigest()[:16]


class Joined(Dataset):
    r"""Data sets one after another, without a copy."""

    def __init__(self, pieces: Sequence[Dataset]) -> None:
        self.pieces, self.range, self.decodes = list(pieces), pieces[0].range, any(piece.decodes for piece in pieces)
        labels = [piece.label for piece in pieces]
        self.label = None if any(label is None for label in labels) else torch.cat([x for x in labels if x is not None])

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pieces[0].shape

    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor | None]:
        chosen = places_of(index, len(self))
        places, first, rows, found = chosen.reshape(-1), 0, list[Tensor](), list[Tensor]()
        for piece in self.pieces:
            rows.append(((places >= first) & (places < first + len(piece))).nonzero().flatten())
            found.append(piece[places[rows[-1]] - first][0])
            first += len(piece)
        x = torch.cat(found)[torch.cat(rows).argsort()]
        return (x if chosen.ndim else x[0]), None if self.label is None else self.label[chosen]

    def fingerprint(self) -> str:
        return identity.fingerprint((str(k), piece.fingerprint()) for k, piece in enumerate(self.pieces))


def places_of(index: Index, count: int) -> Tensor:
    r"""The numbers from 0 to count - 1 that an index means, () or (B,).

    Raises:
        IndexError: one lies outside.
    """
    if isinstance(index, slice):
        return torch.arange(*index.indices(count))
    places = torch.as_tensor(index, dtype=torch.long)
    if places.numel() and not -count <= int(places.min()) <= int(places.max()) < count:
        raise IndexError(f"index {index} is out of range for {count} samples")
    return torch.where(places < 0, places + count, places)
