r"""Data sets, augmentations, and batches as a function of the step."""

from scoregen.data.arrays import Npz
from scoregen.data.augment import Augmentation, Chain, Crop, Flip, InstanceNoise, Shift
from scoregen.data.base import ArrayDataset, Dataset, LazyDataset, Source, Subset
from scoregen.data.batches import Batches
from scoregen.data.captions import CaptionedFolder
from scoregen.data.folder import Folder
from scoregen.data.hugging_face import HuggingFace
from scoregen.data.images import CIFAR10, KMNIST, MNIST, Digits, FashionMNIST
from scoregen.data.npy import Npy
from scoregen.data.scenes import Scenes
from scoregen.data.shards import Shards
from scoregen.data.table_file import TableFile, TableRows
from scoregen.data.tables import BreastCancer, PositiveTable, Wine
from scoregen.data.toy import Toy2D
from scoregen.data.transforms import Transforms
from scoregen.data.views import ColourViews, GreyViews

__all__ = [
    "CIFAR10",
    "KMNIST",
    "MNIST",
    "ArrayDataset",
    "Augmentation",
    "Batches",
    "BreastCancer",
    "CaptionedFolder",
    "Chain",
    "ColourViews",
    "Crop",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "Flip",
    "Folder",
    "GreyViews",
    "HuggingFace",
    "InstanceNoise",
    "LazyDataset",
    "Npy",
    "Npz",
    "PositiveTable",
    "Scenes",
    "Shards",
    "Shift",
    "Source",
    "Subset",
    "TableFile",
    "TableRows",
    "Toy2D",
    "Transforms",
    "Wine",
]
