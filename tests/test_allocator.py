r"""scoregen/allocator.py, each case in a process of its own, as the allocator is one for a process."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scoregen import allocator

FAULTS = """
import ctypes, resource, runpy, sys
kept = runpy.run_path(sys.argv[1])["keep_freed_memory"]() if sys.argv[2] == "keep" else None
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks = [bytearray(12_000_000) for _ in range(3)]; del blocks  # three activations of a network, and again
before = faults()
for _ in range(4):
    blocks = [bytearray(12_000_000) for _ in range(3)]; del blocks
print(kept, faults() - before)
"""


def counted(choice: str, **environment: str) -> tuple[str, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", FAULTS, str(Path(allocator.__file__)), choice]
    kept, faults = subprocess.check_output(command, env=clean | environment, text=True).split()
    return kept, int(faults)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="not glibc")
def test_freed_blocks_are_found_again_without_new_pages() -> None:
    _, usual = counted("usual")
    kept, faults = counted("keep")
    assert kept == "True"
    assert usual > 10_000  # three blocks of 2,930 pages each, four times
    assert faults < 100


@pytest.mark.parametrize(
    "name, value", [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")]
)
def test_settings_of_the_user_are_left_alone(name: str, value: str) -> None:
    kept, _ = counted("keep", **{name: value})
    assert kept == "False"
