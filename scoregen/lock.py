r"""A folder has one owner at a time: a lock that ends with its process, however that ends.

The lock is `flock` on the file .lock in the folder, which the system lifts when the process dies. Where the file system
has no `flock`, or the system no fcntl, the file itself is the lock: it is made only where it is absent, and taken over
where its process ran on this host and is dead. A file that a dead process of another host left must be deleted by hand.
"""

import errno
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from scoregen.errors import UserError
from scoregen.parallel import gather, rank

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # absent there

NAME = ".lock"
_HOLDER = re.compile(r"process (\d+) on (\S+) since (\S+)")
_UNSUPPORTED = {getattr(errno, name) for name in ("ENOSYS", "ENOLCK", "EOPNOTSUPP", "ENOTSUP", "EINVAL")}
_HELD = {errno.EAGAIN, errno.EACCES}
_open_files: set[int] = set()


class Lock:
    r"""Takes a folder, which is made where it is missing, for this process.

    Args:
        folder: an absolute path. key: name of the folder in messages.

    Raises:
        UserError: another process has it.
        OSError: it cannot be made or written to.
    """

    def __init__(self, folder: Path, key: str = "out") -> None:
        self.folder, self.key, self.path = folder, key, folder / NAME
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        self._process = os.getpid()
        try:
            self._file = self._take()
        except BaseException:
            self._remove_made()
            raise
        _open_files.add(self._file)
        with suppress(OSError):  # the text is for the message to others; on a full disk they get a shorter one
            os.ftruncate(self._file, 0)
            os.write(self._file, _text().encode())

    def release(self) -> None:
        r"""Gives the folder back; what was made for the lock is removed."""
        if os.getpid() != self._process or self._file not in _open_files:
            return
        if _same(self._file, self.path):
            self.path.unlink(missing_ok=True)  # while it is held: who opened it before sees that it is gone
        _open_files.discard(self._file)
        os.close(self._file)
        self._remove_made()

    def _take(self) -> int:
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                file, made = _open(self.path)
            except FileNotFoundError:  # its owner removed it at this moment
                continue
            except FileExistsError:  # the same, between the two looks of mkdir; or a file stands there
                if os.path.lexists(self.folder) and not self.folder.is_dir():  # a link to nothing is there too
                    raise
                continue
            locked = _lock(file)
            if (locked or (locked is None and made)) and _same(file, self.path):
                return file
            holder = _holder(file)
            os.close(file)
            if locked is False:
                raise self._in_use(holder, "")
            if locked is None and not made:
                self._take_over(holder)

    def _take_over(self, holder: str) -> None:
        r"""Removes the file of a dead process, where files cannot be locked.

        Of several processes that find it, the one that makes the claim looks again and removes it.
        """
        remedy = f" If that process has ended, delete '{self.path}'."
        if not _is_dead(holder):
            raise self._in_use(holder, remedy)
        claim = self.path.with_name(f"{NAME}.{zlib.crc32(holder.encode())}")
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise self._in_use(holder, f"{remedy} Delete '{claim}' too.") from None
        try:
            if self.path.read_text(errors="replace") == holder:
                self.path.unlink()
        except FileNotFoundError:
            pass
        finally:
            claim.unlink()

    def _in_use(self, holder: str, remedy: str) -> UserError:
        who = holder if _HOLDER.fullmatch(holder) else "another process"
        return UserError(f"{self.key}: '{self.folder}' is in use by {who}. Wait for it or choose another one.{remedy}")

    def _remove_made(self) -> None:
        for path in self._made:
            try:
                path.rmdir()
            except OSError:
                return  # it holds results


class Owner:
    r"""The processes of a job in their folder.

    Args:
        folder: which the first process has taken. key: its name in messages.
    """

    def __init__(self, folder: Path, key: str = "out") -> None:
        self.folder, self.key = folder, key
        self._identity = identity(folder)

    def check(self) -> None:
        r"""Refuses to go on where the folder was renamed or deleted.

        Raises:
            UserError: it was.
        """
        if identity(self.folder) != self._identity:
            raise UserError(
                f"{self.key}: '{self.folder}' was renamed or deleted while this job wrote there. Put it back and give "
                "the same command again, and leave a folder in place while a job writes there."
            )


@contextmanager
def owned(folder: Path, key: str = "out") -> Iterator[Owner]:
    r"""The folder belongs to the processes of this job until the end; called on every process.

    Raises:
        UserError: on every process, where another one has the folder.
    """
    lock, failure = None, None
    if rank() == 0:
        try:
            lock = Lock(folder, key)
        except (UserError, OSError) as error:
            failure = error
    try:
        refused = gather(None if failure is None else str(failure))[0]
        if failure is not None:
            raise failure
        if refused is not None:
            raise UserError(refused)
        yield Owner(folder, key)
    finally:
        if lock is not None:
            lock.release()


def remove_partials(folder: Path) -> None:
    r"""Removes what a killed owner had half written; parts of the folder that another process has are left alone."""
    others = {path.parent for path in folder.rglob(NAME)} - {folder}
    for path in list(folder.rglob(".*.partial")):
        if not others.intersection(path.parents):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def identity(folder: Path) -> tuple[int, int] | None:
    r"""What tells a folder from another one of its name; None where there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _text() -> str:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}"


def _open(path: Path) -> tuple[int, bool]:
    r"""The open file, and whether it was made here."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, flags), False


def _lock(file: int) -> bool | None:
    r"""Whether the file is locked now, False where another process has it; None where files cannot be locked."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _holder(file: int) -> str:
    r"""What the file says of its owner, who writes it just after taking the lock."""
    for _ in range(25):
        text = _read(file)
        if _HOLDER.fullmatch(text):
            break
        time.sleep(0.02)
    return text


def _read(file: int) -> str:
    with suppress(OSError):
        return os.pread(file, 300, 0).decode(errors="replace") if hasattr(os, "pread") else os.read(file, 300).decode()
    return ""


def _same(file: int, path: Path) -> bool:
    r"""Whether the open file is the one at this path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _is_dead(holder: str) -> bool:
    r"""Whether a process ran on this host and has ended."""
    found = _HOLDER.fullmatch(holder)
    if found is None or found.group(2) != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(int(found.group(1)), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _close_in_child() -> None:
    r"""A process that was forked, such as one that reads data, must not keep the lock after its parent's death."""
    for file in _open_files:
        with suppress(OSError):
            os.close(file)
    _open_files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
