r"""Memory that a network frees stays with the process, so that the next step finds it there.

glibc gives large freed blocks back to the kernel at once. A network on a CPU asks for blocks of the same sizes at every
step, and the kernel then has to clear each page anew: a fifth of the time of certifying a small network, some
hundredths of a training (docs/scale.md).
"""

import ctypes
import os

_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_KEPT = 2**29  # bytes that may lie free at the end of the heap
_LARGEST = 2**25  # bytes; larger blocks are always given back, and glibc allows no more
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    r"""Tells glibc to keep up to 512 MB of freed memory, in blocks of up to 32 MB.

    Values do not depend on it. Nothing happens with another C library, or where the user's environment has settings of
    malloc (`MALLOC_TRIM_THRESHOLD_` and its like, `GLIBC_TUNABLES`).

    Returns:
        Whether it was told so.
    """
    if any(name in os.environ for name in _OWN) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  # only glibc has it
        return all(library.mallopt(key, value) == 1 for key, value in ((_MAP, _LARGEST), (_TRIM, _KEPT)))
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return False
