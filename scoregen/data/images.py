r"""Image data sets: scikit-learn's digits, torchvision's, and folders."""

import math
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from scoregen.compat import repair_torchvision
from scoregen.data.arrays import load_npz
from scoregen.data.augment import Augmentation
from scoregen.data.base import ArrayDataset, Held, Source, split
from scoregen.data.bounds import MOST_PIXELS, check_memory, check_number, check_size
from scoregen.data.files import image_files, picture_shape, read_picture
from scoregen.data.parts import AUTO
from scoregen.errors import UserError, absent


class Digits(Source):
    r"""The 1,797 handwritten digits, 1 x 8 x 8, that ship inside scikit-learn; 180 of them held out.

    Args:
        augmentation: applied to training batches.
        test, validation: as of `Source`.
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
        test, validation: as of `Source`.
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

    def load(self, train: bool) -> ArrayDataset:
        if self._subset_path is not None:
            return load_npz(self._subset_path, train)
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
        test, validation: as of `Source`.
    """

    name, class_name = "mnist", "MNIST"


class FashionMNIST(_Torchvision):
    r"""Fashion-MNIST, 60,000 + 10,000 images 1 x 28 x 28.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        test, validation: as of `Source`.
    """

    name, class_name = "fashion_mnist", "FashionMNIST"


class KMNIST(_Torchvision):
    r"""Kuzushiji-MNIST, 1 x 28 x 28; `kmnist_10k.npz` (9,000 + 1,000) where the root holds it.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        test, validation: as of `Source`.
    """

    name, class_name, subset = "kmnist", "KMNIST", "kmnist_10k.npz"


class CIFAR10(_Torchvision):
    r"""CIFAR-10, 3 x 32 x 32; `cifar10_subset.npz` (20,000 + 1,017) where the root holds it.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        test, validation: as of `Source`.
    """

    name, class_name, subset = "cifar10", "CIFAR10", "cifar10_subset.npz"


class Folder(Source):
    r"""A folder of images; its sub-folders, if any, are the classes. A tenth of the images is held out.

    Args:
        path: the folder, searched recursively.
        size: images are resized (shorter side) and cropped to size x size; None for images that all have one size.
        augmentation: applied to training batches.
        max_pixels: that a picture may have, in its file and once it is resized.

    Raises:
        ValueError: size is no whole number >= 1.
        UserError: fewer than two images, too large ones, mixed channels, or mixed sizes without `size`; names the
            files.
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        path: str,
        size: int | None = None,
        augmentation: Augmentation | None = None,
        max_pixels: int = MOST_PIXELS,
    ) -> None:
        super().__init__(augmentation)
        check_size(size, max_pixels)
        self.path, self.size, self.max_pixels = path, None if size is None else int(size), max_pixels
        folder = _existing(path, "data.path")
        self.files, self.name = image_files(folder), folder.name
        check_number(self.files)
        self.classes = _classes(self.files, folder)
        self._check_alike()
        self.num_classes = len(self.classes) or None

    def _check_alike(self) -> None:
        first = None
        for file in self.files:
            channels, height, width = picture_shape(file, most=self.max_pixels)
            kind = (channels, None if self.size else (width, height))
            if first is None:
                first = kind
            elif kind != first:
                raise UserError(
                    f"data.path: images must have the same channels{'' if self.size else ' and size'}, but "
                    f"'{self.files[0].name}' has "
                    f"{first[0]} channels{'' if self.size else f' and size {first[1]}'}, '{file.name}' has {kind[0]}"
                    f"{'' if self.size else f' and {kind[1]}'}. Convert "
                    f"them{'' if self.size else ' or give data.size'}."
                )
        channels, sides = first or (1, None)
        check_memory("data.path", len(self.files) * channels * math.prod(sides or (self.size or 1,) * 2))

    def load(self, train: bool) -> ArrayDataset:
        x = torch.stack([read_picture(file, size=self.size, most=self.max_pixels) for file in self.files])
        label = None
        if self.classes:
            order = {path: i for i, path in enumerate(self.classes)}
            label = torch.tensor([order[file.parent] for file in self.files])
        return split(x, label, train)


def _classes(files: list[Path], folder: Path) -> list[Path]:
    r"""The sub-folders with images; UserError where images lie beside them, or deeper."""
    classes = sorted({p.parent for p in files if p.parent != folder})
    beside = [p for p in files if p.parent == folder]
    if classes and beside:
        raise UserError(
            f"data.path: '{folder}' has sub-folders, which are classes, but also {len(beside)} images without a class "
            f"(first: '{beside[0].name}'). Move them into a sub-folder, or remove them."
        )
    nested = next((p for p in classes if p.parent != folder), None)
    if nested is not None:
        raise UserError(
            f"data.path: the classes are the sub-folders of '{folder}', but images lie deeper, in "
            f"'{nested.relative_to(folder)}'. Move them up, or give data.path={nested.parent}."
        )
    return classes


def _one_at_a_time(folder: Path) -> AbstractContextManager[object]:
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".fetching.lock")


def _existing(path: str, where: str) -> Path:
    if not Path(path).exists():
        raise UserError(f"{where}: {absent(path)}")
    return Path(path)
