r"""Image data sets: scikit-learn's digits, and torchvision's."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from scoregen.compat import repair_torchvision
from scoregen.data.arrays import open_archive
from scoregen.data.augment import Augmentation
from scoregen.data.base import ArrayDataset, Dataset, Held, Source
from scoregen.data.parts import AUTO
from scoregen.errors import UserError


class Digits(Source):
    r"""The 1,797 handwritten digits, 1 x 8 x 8, that ship inside scikit-learn; 180 of them held out.

    Args:
        augmentation: applied to training batches.
        test, validation: which data are these parts, as in `Source`.
    """

    name = "digits"
    range = (0.0, 1.0)
    num_classes = 10

    def load(self, train: bool) -> ArrayDataset | None:
        from sklearn.datasets import load_digits

        if not train:
            return None
        digits = load_digits()
        x = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
        return ArrayDataset(x, torch.from_numpy(digits.target))


class _Torchvision(Source):
    r"""A torchvision data set; or, where the root holds it, an npz subset of it.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        test, validation: which data are these parts, as in `Source`.
    """

    range = (0.0, 1.0)
    num_classes = 10
    class_name: str
    subset: str | None = None

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        augmentation: Augmentation | None = None,
        test: Held = AUTO,
        validation: Held = AUTO,
    ) -> None:
        super().__init__(augmentation, test, validation)
        self.root, self.download = root, download
        if self._subset_path is not None:
            self.name = self._subset_path.stem

    @property
    def _subset_path(self) -> Path | None:
        path = Path(self.root, self.subset) if self.subset else None
        return path if path is not None and path.is_file() else None

    def load(self, train: bool) -> Dataset | None:
        if self._subset_path is not None:
            return open_archive(self._subset_path).get("train" if train else "test")
        repair_torchvision()
        from torchvision import datasets

        kind = getattr(datasets, self.class_name)
        try:
            try:
                found = kind(self.root, train=train, download=False)
            except RuntimeError:
                if not self.download:
                    raise
                with _one_at_a_time(Path(self.root)):  # of several processes one fetches
                    found = kind(self.root, train=train, download=True)
        except (RuntimeError, OSError) as error:
            reason = "could not be fetched" if self.download else "data.download=false forbids fetching it"
            raise UserError(
                f"data.root: {self.name} is not under '{self.root}' and {reason}. Give data.root=FOLDER with its files."
            ) from error
        x = torch.as_tensor(np.asarray(found.data))
        x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)
        return ArrayDataset(x.contiguous(), torch.as_tensor(found.targets))


class MNIST(_Torchvision):
    r"""MNIST, 60,000 + 10,000 images 1 x 28 x 28.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        test, validation: which data are these parts, as in `Source`.
    """

    name, class_name = "mnist", "MNIST"


class FashionMNIST(_Torchvision):
    r"""Fashion-MNIST, 60,000 + 10,000 images 1 x 28 x 28.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        test, validation: which data are these parts, as in `Source`.
    """

    name, class_name = "fashion_mnist", "FashionMNIST"


class KMNIST(_Torchvision):
    r"""Kuzushiji-MNIST, 1 x 28 x 28; `kmnist_10k.npz` (9,000 + 1,000) where the root holds it.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        test, validation: which data are these parts, as in `Source`.
    """

    name, class_name, subset = "kmnist", "KMNIST", "kmnist_10k.npz"


class CIFAR10(_Torchvision):
    r"""CIFAR-10, 3 x 32 x 32; `cifar10_subset.npz` (20,000 + 1,017) where the root holds it.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        test, validation: which data are these parts, as in `Source`.
    """

    name, class_name, subset = "cifar10", "CIFAR10", "cifar10_subset.npz"


def _one_at_a_time(folder: Path) -> AbstractContextManager[object]:
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".fetching.lock")
