r"""Data sets, augmentations, and batches as a function of the step."""

from scoregen.data.augment import Augmentation, Chain, Flip, Shift
from scoregen.data.base import ArrayDataset, Source
from scoregen.data.batches import Batches
from scoregen.data.images import CIFAR10, KMNIST, MNIST, Digits, FashionMNIST, Folder, Npz
from scoregen.data.toy import Toy2D

__all__ = [
    "CIFAR10",
    "KMNIST",
    "MNIST",
    "ArrayDataset",
    "Augmentation",
    "Batches",
    "Chain",
    "Digits",
    "FashionMNIST",
    "Flip",
    "Folder",
    "Npz",
    "Shift",
    "Source",
    "Toy2D",
]
