r"""The members of a tar file by their headers alone: where each begins and how long it is; nothing is unpacked.

A tar file is a row of blocks of 512 bytes: a header, then the content, filled up to a block. So a member is read at its
offset, in any order. A file from elsewhere may claim any size and any name: sizes must lie in the file, names are only
keys, and links, devices and sparse members, which stand for something outside their place, are refused.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from scoregen.errors import UserError, absent
from scoregen.parallel import say_once

BLOCK = 512
_LONGEST_NAME, _LONGEST_NOTE = 2**12, 2**16  # bytes of a long name, and of an extended header
_REGULAR, _FOLDER, _NOTE, _NOTE_FOR_ALL, _LONG_NAME, _LONG_LINK = b"0", b"5", b"x", b"g", b"L", b"K"
_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


class Member(NamedTuple):
    r"""One file in a tar file: its path there, and where its content begins and how long it is, in bytes."""

    name: str
    offset: int
    size: int


class _Header(NamedTuple):
    name: str
    size: int
    kind: bytes


def members(path: Path, where: str, seen: Callable[[bytes], object]) -> Iterator[Member]:
    r"""The regular members of a tar file, in its order; folders are left out.

    Args:
        path: the file. where: the key that named it. seen: is given every header, for a digest.

    Raises:
        UserError: the file is missing, compressed, damaged or cut off, or holds links, devices or sparse files.
    """
    descriptor = open_regular(path, where)
    try:
        yield from _walk(_File(path, where, descriptor, os.fstat(descriptor).st_size), seen)
    finally:
        os.close(descriptor)


def open_regular(path: Path, where: str) -> int:
    r"""The descriptor of a regular file that is open for reading.

    Raises:
        UserError: it is missing, or something else.
    """
    if not path.exists():
        raise UserError(f"{where}: {absent(path)}")
    try:  # a pipe without a writer would wait for one
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise UserError(f"{where}: '{path}' cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{where}: '{path}' is not a regular file.")
    return descriptor


class _File(NamedTuple):
    path: Path
    where: str
    descriptor: int
    size: int

    def read(self, offset: int, count: int, what: str) -> bytes:
        r"""`count` bytes at an offset; UserError where the file ends before."""
        if offset + count > self.size:
            raise self.damaged(f"it is cut off: {what} ends at byte {offset + count} of {self.size}")
        return os.pread(self.descriptor, count, offset)

    def damaged(self, reason: str) -> UserError:
        return UserError(f"{self.where}: '{self.path}' is not a readable tar file ({reason}). Write it again.")


def _walk(file: _File, seen: Callable[[bytes], object]) -> Iterator[Member]:
    offset, name, size = 0, None, None  # a long name, and a size, that an extended header gives to the next member
    while offset < file.size:
        block = file.read(offset, BLOCK, "a header")
        if not block.strip(b"\0"):
            return
        seen(block)
        header = _parsed(block, file, offset)
        start = offset + BLOCK
        if header.kind in (_NOTE, _LONG_NAME):
            note = _note(file, header, start)
            seen(note)
            if header.kind == _LONG_NAME:
                name = _text(note.rstrip(b"\0"), file)
            else:
                name, size = _extended(note, file, name, size)
            offset = _after(start, header.size)
            continue
        if header.kind in (_NOTE_FOR_ALL, _LONG_LINK):
            _note(file, header, start)
            offset = _after(start, header.size)
            continue
        member = Member(header.name if name is None else name, start, header.size if size is None else size)
        _check_kind(header.kind, member, file)
        if not 0 <= member.size <= file.size - start:
            raise file.damaged(f"it is cut off: '{member.name}' has {member.size} bytes, {file.size - start} are left")
        offset, name, size = _after(start, member.size), None, None
        if header.kind != _FOLDER:
            yield member
    say_once(f"{file.where}: '{file.path}' has no mark at its end, it may be cut off.")


def _after(start: int, size: int) -> int:
    return start + (size + BLOCK - 1) // BLOCK * BLOCK


def _check_kind(kind: bytes, member: Member, file: _File) -> None:
    if kind not in (_REGULAR, _FOLDER):
        raise UserError(
            f"{file.where}: '{member.name}' in '{file.path}' is {_KINDS.get(kind, f'of the kind {kind!r}')}. Members "
            "must be regular files; write the archive without it."
        )


def _parsed(block: bytes, file: _File, offset: int) -> _Header:
    r"""A header; UserError where its sum of bytes is not the one that it states."""
    if offset == 0 and block[:2] in _COMPRESSED:
        raise UserError(
            f"{file.where}: '{file.path}' is compressed ({_COMPRESSED[block[:2]]}), so nothing in it can be read at "
            "its offset. Unpack it to a plain .tar file; pictures do not get smaller by it."
        )
    stated = _number(block[148:156], file)
    if stated != sum(block[:148]) + 256 + sum(block[156:]):
        raise file.damaged(f"no header at byte {offset}")
    kind = _REGULAR if block[156:157] in (b"\0", b"7") else block[156:157]
    name = block[:100].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0")[0] + b"/" + name
    if kind == _REGULAR and name.endswith(b"/"):  # as the oldest archives mark a folder
        kind = _FOLDER
    size = 0 if kind == _FOLDER else _number(block[124:136], file)
    return _Header(_text(name, file), size, kind)


def _number(digits: bytes, file: _File) -> int:
    r"""A number in octal digits or, where its first bit is set, in binary."""
    if digits[0] & 0x80:
        return int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:], "big")
    try:
        return int(digits.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise file.damaged(f"{digits!r} is no number") from None


def _note(file: _File, header: _Header, start: int) -> bytes:
    most = _LONGEST_NAME if header.kind in (_LONG_NAME, _LONG_LINK) else _LONGEST_NOTE
    if not 0 <= header.size <= most:
        raise file.damaged(f"'{header.name}' claims {header.size} bytes for a name or note, {most} are allowed")
    return file.read(start, header.size, f"'{header.name}'")


def _extended(note: bytes, file: _File, name: str | None, size: int | None) -> tuple[str | None, int | None]:
    r"""Name and size of the next member from an extended header: records of "LENGTH KEY=VALUE" and a line feed."""
    while note:
        length, _, rest = note.partition(b" ")
        if not length.isdigit() or len(length) > 6 or not len(length) + 1 < int(length) <= len(note):
            raise file.damaged("an extended header is damaged")
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        if key == b"path":
            name = _text(value, file)
        elif key == b"size":
            if not value.isdigit() or len(value) > 18:
                raise file.damaged(f"{value[:40]!r} is no size")
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise file.damaged("it holds a sparse file")
        note = note[int(length) :]
    return name, size


def _text(name: bytes, file: _File) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise file.damaged(f"the name {name[:60]!r} is not UTF-8") from None
