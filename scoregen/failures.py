r"""What fails in the machine rather than in the program, in plain words.

Disks fill, files are damaged and memory runs out inside libraries, each of which raises something of its own:
`safetensors` an error that is no `OSError`, torch's allocator a `RuntimeError`. They are translated here, and nowhere
else; the command line does it for all that comes through.
"""

import errno
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from scoregen.errors import UserError

_SYSTEM = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
    errno.ENAMETOOLONG: "the name or path is too long",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is missing",
    errno.EPERM: "it is not permitted",
    errno.EMFILE: "too many files are open (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "its links go round in a circle",
    errno.EIO: "the device failed to read or write",
    errno.ESTALE: "the folder was replaced on its server",
}
_DAMAGE = (zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, struct.error)
_LOST = re.compile(
    r"Timed out waiting|timeout caused pair closure|Connection (closed|reset) by peer|"  # gloo
    r"[Ww]atchdog caught collective operation timeout"  # NCCL
)
_LOST_REASON = "another process has ended, or did not answer in time"
_ALLOCATOR = re.compile(r"DefaultCPUAllocator|not enough memory|out of memory|Storage size calculation overflowed")


def reason(error: BaseException) -> str | None:
    r"""Why the machine could not do it, without a full stop; None for an error of another kind."""
    if isinstance(error, OSError):
        text = _SYSTEM.get(error.errno or 0) or error.strerror or _one_line(error)
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"'{' -> '.join(names)}': {text}" if names else text
    if type(error).__name__ == "SafetensorError":
        number = re.search(r"os error (\d+)", str(error))
        return _SYSTEM.get(int(number.group(1)), _one_line(error)) if number else _one_line(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _ALLOCATOR.search(str(error))):
        return "there is not enough memory"
    if isinstance(error, RuntimeError) and _LOST.search(str(error)):
        return _LOST_REASON
    if isinstance(error, RecursionError):
        return "something is nested too deeply"
    return f"a file is damaged: {_one_line(error)}" if isinstance(error, _DAMAGE) else None


@contextmanager
def translated(what: str, remedy: str) -> Iterator[None]:
    r"""Turns what fails in the machine into one message: `what` (the reason). `remedy`

    Raises:
        UserError: reading, writing or allocating failed.
    """
    try:
        yield
    except Exception as error:
        found = None if isinstance(error, UserError) else reason(error)
        if found is None:
            raise
        raise UserError(f"{what} ({found}). {remedy}") from error


def message(error: BaseException) -> str | None:
    r"""The whole message of what failed in the machine, for the one who started a job; None for other errors."""
    found = reason(error)
    if found is None:
        return None
    if found == "there is not enough memory":
        return f"{found}. Give a smaller batch_size or a smaller model, or a machine with more of it."
    if found == _LOST_REASON:
        return f"{found}. Look for its message; a training waits for trainer.timeout minutes. Then repeat the command."
    return f"{found}."


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
