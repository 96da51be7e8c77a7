r"""Image data sets: scikit-learn's digits, torchvision's, npz files and folders."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from scoregen import checks
from scoregen.compat import repair_torchvision
from scoregen.data.augment import Augmentation
from scoregen.data.base import ArrayDataset, Source, split
from scoregen.data.files import image_files, picture_shape, read_archive, read_picture
from scoregen.errors import UserError, absent


class Digits(Source):
    r"""The 1,797 handwritten digits, 1 x 8 x 8, that ship inside scikit-learn; 180 of them held out.

    Args:
        augmentation: applied to training batches.
    """

    name = "digits"
    range = (0.0, 1.0)
    num_classes = 10

    def __init__(self, augmentation: Augmentation | None = None) -> None:
        super().__init__(augmentation)

    def load(self, train: bool) -> ArrayDataset:
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
        return split(x, torch.from_numpy(digits.target), train)


class _Torchvision(Source):
    r"""A torchvision data set; or, where the root holds it, an npz subset of it.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        validation: number of training images held out as a validation split, which replaces the test split; 0 for none.
    """

    range = (0.0, 1.0)
    num_classes = 10
    class_name: str
    subset: str | None = None

    def __init__(
        self, root: str = "data", download: bool = True, augmentation: Augmentation | None = None, validation: int = 0
    ) -> None:
        super().__init__(augmentation)
        checks.whole(0, validation=validation)
        self.root, self.download, self.validation = root, download, int(validation)
        if self._subset_path is not None:
            self.name = self._subset_path.stem

    @property
    def _subset_path(self) -> Path | None:
        path = Path(self.root, self.subset) if self.subset else None
        return path if path is not None and path.is_file() else None

    def load(self, train: bool) -> ArrayDataset:
        if not self.validation:
            return self._part(train)
        whole = self._part(train=True)
        if self.validation >= len(whole):
            raise ValueError(
                f"validation must be below the number of training images, {len(whole)}, got "
                f"validation={self.validation}."
            )
        return split(whole.x, whole.label, train, self.validation / len(whole))

    def _part(self, train: bool) -> ArrayDataset:
        if self._subset_path is not None:
            return _load_npz(self._subset_path, train)
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
        validation: number of training images held out as a validation split, which replaces the test split; 0 for none.
    """

    name, class_name = "mnist", "MNIST"


class FashionMNIST(_Torchvision):
    r"""Fashion-MNIST, 60,000 + 10,000 images 1 x 28 x 28.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        validation: number of training images held out as a validation split, which replaces the test split; 0 for none.
    """

    name, class_name = "fashion_mnist", "FashionMNIST"


class KMNIST(_Torchvision):
    r"""Kuzushiji-MNIST, 1 x 28 x 28; `kmnist_10k.npz` (9,000 + 1,000) where the root holds it.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        validation: number of training images held out as a validation split, which replaces the test split; 0 for none.
    """

    name, class_name, subset = "kmnist", "KMNIST", "kmnist_10k.npz"


class CIFAR10(_Torchvision):
    r"""CIFAR-10, 3 x 32 x 32; `cifar10_subset.npz` (20,000 + 1,017) where the root holds it.

    Args:
        root: folder of the files.
        download: whether to fetch missing files.
        augmentation: applied to training batches.
        validation: number of training images held out as a validation split, which replaces the test split; 0 for none.
    """

    name, class_name, subset = "cifar10", "CIFAR10", "cifar10_subset.npz"


class Npz(Source):
    r"""A NumPy archive with `train_images` (N, H, W[, C]); optionally `train_labels`, `test_images`, `test_labels`.

    uint8 images are read as x/255, floats as they are. A table (N, D) under `train_images` or `x` is read as vectors.
    The range is (0, 1) for bytes, and for float images whose values all lie there; it is None for all other data.

    Args:
        path: the file.
        augmentation: applied to training batches.

    Raises:
        UserError: the file is missing or damaged, or its parts are empty or of different shapes or types.
    """

    def __init__(self, path: str, augmentation: Augmentation | None = None) -> None:
        super().__init__(augmentation)
        self.path, self.name = path, Path(path).stem
        parts = {"train": self.load(train=True), "test": self.load(train=False)}
        kinds = {name: (tuple(part.x.shape[1:]), part.x.dtype) for name, part in parts.items()}
        if min(map(len, parts.values())) < 1 or kinds["train"] != kinds["test"]:
            found = ", ".join(f"{name}: {len(part)} of {kinds[name]}" for name, part in parts.items())
            raise UserError(f"data.path: both parts of '{path}' must hold images of one shape and type, got {found}.")
        labels = [part.label for part in parts.values() if part.label is not None and len(part.label)]
        self.num_classes = max(int(label.max()) for label in labels) + 1 if labels else None
        shape, dtype = kinds["train"]
        unit = dtype == torch.uint8 or all(part.x.min() >= 0 and part.x.max() <= 1 for part in parts.values())
        self._range = (0.0, 1.0) if unit and len(shape) == 3 else None
        self.train, self.test = parts["train"], parts["test"]

    @property
    def range(self) -> tuple[float, float] | None:
        return self._range

    def load(self, train: bool) -> ArrayDataset:
        return _load_npz(Path(self.path), train)


class Folder(Source):
    r"""A folder of images; its sub-folders, if any, are the classes. A tenth of the images is held out.

    Args:
        path: the folder, searched recursively.
        size: images are resized (shorter side) and cropped to size x size; None for images that all have one size.
        augmentation: applied to training batches.

    Raises:
        ValueError: size is no whole number >= 1.
        UserError: no images, mixed channels, or mixed sizes without `size`; names the files.
    """

    range = (0.0, 1.0)

    def __init__(self, path: str, size: int | None = None, augmentation: Augmentation | None = None) -> None:
        super().__init__(augmentation)
        if size is not None:
            checks.whole(1, size=size)
        self.path, self.size = path, None if size is None else int(size)
        folder = _existing(path, "data.path")
        self.files, self.name = image_files(folder), folder.name
        self.classes = _classes(self.files, folder)
        self._check_alike()
        self.num_classes = len(self.classes) or None

    def _check_alike(self) -> None:
        first = None
        for file in self.files:
            channels, height, width = picture_shape(file)
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

    def load(self, train: bool) -> ArrayDataset:
        x = torch.stack([read_picture(file, size=self.size) for file in self.files])
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


def _load_npz(path: Path, train: bool) -> ArrayDataset:
    archive = read_archive(path, "data.path")
    has_split = {"train_images", "test_images"} <= set(archive)
    part = "train" if train or not has_split else "test"
    images = next((archive[n] for n in (f"{part}_images", "images", "x") if n in archive), None)
    label = next((archive[n] for n in (f"{part}_labels", "labels", "y") if n in archive), None)
    if images is None:
        raise UserError(f"data.path: '{path}' must hold 'train_images' (or 'images' or 'x'), got {sorted(archive)}.")
    x, labels = _channels_first(images), None if label is None else torch.from_numpy(label)
    return ArrayDataset(x, labels) if has_split else split(x, labels, train)


def _channels_first(images: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images))
    if x.ndim == 3:
        return x.unsqueeze(1)
    if x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return x.permute(0, 3, 1, 2).contiguous()
    return x
