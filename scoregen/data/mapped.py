r"""Arrays in files, mapped into memory: rows are read when they are used, and cost no memory of the process.

An .npy file is mapped, and so is a member of an .npz file that is not compressed: it is an .npy file at an offset.
"""

import struct
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from scoregen.data.bounds import check_header
from scoregen.data.files import DAMAGED
from scoregen.data.opening import Damaged, present

_LOCAL = struct.Struct("<26xHH")  # header of a member: lengths of its name and of what is between that and its bytes


@dataclass(frozen=True)
class Mapped:
    r"""An array in a file.

    Args:
        path: the file. offset: of its first byte. shape, dtype: of it. columns: whether it is column-major.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns: bool

    @cached_property
    def rows(self) -> np.ndarray:
        r"""The array, which each process maps for itself."""
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, "F" if self.columns else "C")
        return mapped.view(np.ndarray)  # whose rows are taken faster

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "rows"}


def map_array(path: Path, where: str) -> Mapped:
    r"""The array of an .npy file.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    present(path, where)
    try:
        with path.open("rb") as file:
            return _mapped(path, file, path.stat().st_size)
    except DAMAGED as error:
        raise Damaged(f"{where}: '{path}' is not a readable .npy file without pickled objects ({error}).") from error


def map_member(path: Path, name: str, where: str) -> Mapped | None:
    r"""A member of an .npz file, such as train_images; None where it is compressed.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            info = archive.getinfo(f"{name}.npy")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:  # 1: encrypted
                return None
            file.seek(info.header_offset)
            named, more = _LOCAL.unpack(file.read(_LOCAL.size))
            file.seek(info.header_offset + _LOCAL.size + named + more)
            return _mapped(path, file, info.file_size)
    except (*DAMAGED, KeyError) as error:
        raise Damaged(f"{where}: '{path}' is not a readable .npz file without pickled objects ({error}).") from error


def _mapped(path: Path, file: IO[bytes], size: int) -> Mapped:
    r"""The array whose header begins where a file stands."""
    shape, columns, dtype = check_header(file, size)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if file.tell() + np.prod(shape, dtype=object) * dtype.itemsize > path.stat().st_size:
        raise ValueError("it is cut short")
    return Mapped(path, file.tell(), shape, dtype, columns)
