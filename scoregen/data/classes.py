r"""What the sub-folders of a folder stand for: the parts of the data, and classes, of several levels too.

A class is a folder that holds files; its name is the path to it, such as `animals/cat`. Files beside a sub-folder with
files have no class of their own, so they are refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scoregen.data.index import Files
from scoregen.data.parts import FOLDERS, NAMES, Name
from scoregen.errors import UserError, listed
from scoregen.parallel import say_once


@dataclass(frozen=True)
class Classes:
    r"""The classes of the files of a folder, and the part that each is in.

    Args:
        folders: names of the sub-folders that hold files. folder: (N,) the number of the folder of each file.
        parts: of the data, each with the names that its folder has; empty where the sub-folders are classes.
    """

    folders: tuple[str, ...]
    folder: np.ndarray
    parts: dict[Name, tuple[str, ...]]

    @cached_property
    def _of_folder(self) -> list[str]:
        r"""The name of the class of each folder, without its part."""
        return [name.partition("/")[2] if self.parts else name for name in self.folders]

    @cached_property
    def names(self) -> tuple[str, ...]:
        r"""The names of the classes, in the order of the parts of their paths."""
        return tuple(sorted({name for name in self._of_folder if name}, key=lambda name: name.split("/")))

    def label(self, places: Tensor) -> Tensor | None:
        r"""The classes of some files, by number; None where there are none."""
        if not self.names:
            return None
        numbers = {name: k for k, name in enumerate(self.names)}
        of_folder = torch.tensor([numbers.get(name, -1) for name in self._of_folder])
        return of_folder[torch.from_numpy(self.folder)[places]]

    def part(self, name: Name) -> Tensor | None:
        r"""The numbers of the files of a part; None where there is no such part."""
        if not self.parts:
            return torch.arange(len(self.folder)) if name == "train" else None
        if name not in self.parts:
            return None
        own = np.array([folder.partition("/")[0] in self.parts[name] for folder in self.folders])
        return torch.from_numpy(own[self.folder].nonzero()[0])


def classes_of(files: Files) -> Classes:
    r"""The classes and parts of the files of a folder.

    Raises:
        UserError: some files are in a class, and others in none.
    """
    numbers, folder, first = dict[str, int](), np.empty(len(files), np.int32), dict[str, str]()
    for place in range(len(files)):
        path, _, name = files.name(place).rpartition("/")
        folder[place] = numbers.setdefault(path, len(numbers))
        first.setdefault(path, name)
    found = Classes(tuple(numbers), folder, _parts(tuple(numbers)))
    tops = _tops(numbers)
    if not found.parts and any(_stands_for("train", top) for top in tops):
        say_once(
            f"data.path: the folders of '{files.folder}' are taken for classes: {listed(tops)}. Parts are folders "
            "called train, val and test, with no other one beside them."
        )
    above = {path[:end] for path in numbers for end, sign in enumerate(f"{path}/") if sign == "/" and end < len(path)}
    above |= {""} if numbers.keys() - {""} else set()
    beside = sorted(numbers.keys() & (above | ({*_tops(numbers)} if found.parts and found.names else set())))
    if beside:
        count = int((folder == numbers[beside[0]]).sum())
        raise UserError(
            f"data.path: '{files.folder / beside[0]}' has {count} files without a class (first: "
            f"'{first[beside[0]]}'), but others are in sub-folders, which are classes. Move them into a sub-folder, or "
            "remove them."
        )
    return found


def _parts(folders: tuple[str, ...]) -> dict[Name, tuple[str, ...]]:
    r"""The parts of the data, where the sub-folders are nothing but a training part and other ones."""
    tops = _tops(folders)
    found = {name: tuple(top for top in tops if _stands_for(name, top)) for name in NAMES}
    found = {name: own for name, own in found.items() if own}
    if "train" not in found or sum(map(len, found.values())) < len(tops):
        return {}
    if "test" not in found and "validation" in found:  # ImageNet has train and val
        found["test"] = found.pop("validation")
    return found


def _stands_for(name: Name, top: str) -> bool:
    return top.lower() in FOLDERS[name]


def _tops(folders: Iterable[str]) -> list[str]:
    return sorted({folder.partition("/")[0] for folder in folders})
