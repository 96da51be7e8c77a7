r"""Checkpoints and data from elsewhere that attack: each gets one message within 10 s and 500 MB, and runs nothing."""

import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fault_jobs import DIGITS, MESSAGE, Bench, Seen
from fault_process import Child, Ended, one_message, own_memory

SECONDS, MEGABYTES = 10, 500
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
CHECKPOINTS: dict[str, Callable[[Path], Any]] = {
    "billion laughs": lambda place: place.write_text(LAUGHS + "model: *a9\n"),
    "contains itself": lambda place: place.write_text("model: &a\n  network: *a\n"),
    "deep": lambda place: place.write_text("model: " + "[" * 10**6),
    "fifo": lambda place: os.mkfifo(place),
    "endless": lambda place: place.symlink_to("/dev/zero"),
    "many parameters": lambda place: place.write_text(
        "model: {_target_: scoregen.models.MLP, shape: [10000000], width: 1000, depth: 1}\n"
    ),
    "program": lambda place: place.write_text("model: {_target_: os.system, command: 'touch executed'}\n"),
    "yaml program": lambda place: place.write_text("model: !!python/object/apply:os.system ['touch executed']\n"),
}


def hostile_checkpoint(bench: Bench) -> Seen:
    r"""A checkpoint from elsewhere whose config.yaml attacks; state.json says that it is what was written."""
    folder, digits = bench.new(), bench.network("digits")
    name = sorted(CHECKPOINTS)[bench.trials % len(CHECKPOINTS)]
    shutil.copytree((digits / "checkpoints" / "last").resolve(), folder / "given")
    (folder / "given" / "config.yaml").unlink()
    CHECKPOINTS[name](folder / "given" / "config.yaml")
    return _answer(name, folder, Child("sample", ["checkpoint=given", "n=1", "out=out"], folder / "log"))


def picture(path: Path, width: int, height: int, claims: tuple[int, int] | None = None) -> Path:
    r"""A black PNG of 1 bit, whose header may claim another size."""
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", *(claims or (width, height)), 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def _among_others(place: Path, name: str) -> Path:
    r"""A folder of three pictures that can be read; the path of a fourth."""
    place.mkdir()
    for number in range(3):
        picture(place / f"{number}.png", 8, 8)
    return place / name


def _archive(place: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED, damage: bool = False) -> None:
    with zipfile.ZipFile(place, "w", method) as archive:
        archive.writestr("images.npy", content)
    if damage:
        written = place.read_bytes()
        place.write_bytes(written[:60] + bytes(200) + written[260:])


def _array(shape: tuple[int, ...], content: bytes = b"") -> bytes:
    r"""An array of bytes that claims a shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + content


NOISE = np.random.default_rng(0).integers(0, 255, (30, 8, 8), dtype=np.uint8).tobytes()
Maker = Callable[[Path], Any]
DATA: dict[str, tuple[str, Maker]] = {
    "many pixels": ("folder", lambda place: picture(_among_others(place, "a.png"), 13_000, 13_000)),
    "claims 2^31 pixels a side": ("folder", lambda p: picture(_among_others(p, "a.png"), 8, 8, (2**31 - 1,) * 2)),
    "thin": ("folder data.size=64", lambda place: picture(_among_others(place, "a.png"), 1, 60_000)),
    "fifo": ("folder", lambda place: os.mkfifo(_among_others(place, "a.png"))),
    "endless": ("folder", lambda place: _among_others(place, "a.png").symlink_to("/dev/zero")),
    "no picture": ("folder", lambda place: _among_others(place, "a.png").write_bytes(b"GIF")),
    "archive bomb": ("npz", lambda place: _archive(place, _array((2**25, 8, 8), bytes(2**31)))),
    "claims 10^12 bytes": ("npz", lambda place: _archive(place, _array((10**12,)))),
    "claims -1 images": ("npz", lambda place: _archive(place, _array((-1, 8, 8)))),
    "damaged archive": ("npz", lambda place: _archive(place, _array((30, 8, 8), NOISE), zipfile.ZIP_LZMA, True)),
    "objects": ("npz", lambda place: np.savez(place, images=np.array([print, 1], dtype=object))),
    "large labels": ("npz", lambda place: np.savez(place, images=np.zeros((9, 8, 8)), labels=np.full(9, 2**40))),
    "pipe": ("npz", lambda place: os.mkfifo(place)),
}


def hostile_data(bench: Bench) -> Seen:
    r"""A folder of pictures or an archive that attacks, given to a training."""
    folder = bench.new()
    name = sorted(DATA)[bench.trials % len(DATA)]
    kind, make = DATA[name]
    make(folder / "data.npz" if kind == "npz" else folder / "data")
    small = [*DIGITS[1:], "model.network.channels=[4]", "model.network.attention=[]", "data.max_corrupt=0"]
    place = f"data.path={folder}/data{'.npz' if kind == 'npz' else ''}"
    if kind == "npz":
        small.pop()
    child = Child("train", [f"data={kind.split()[0]}", *kind.split()[1:], place, *small], folder / "log")
    return _answer(name, folder, child)


def _answer(name: str, folder: Path, child: Child) -> Seen:
    ended: Ended = child.wait(SECONDS + 5)
    if (folder / "executed").exists():
        return Seen(f"{name}: executed", 1)
    if ended.status != 1 or (told := one_message(ended)) != MESSAGE:
        return Seen(f"{name}: status {ended.status}, {told if ended.status == 1 else ended.errors[-150:]}")
    if ended.seconds > SECONDS or ended.memory - own_memory() > MEGABYTES:
        return Seen(f"{name}: {ended.seconds:.1f} s, {ended.memory - own_memory():.0f} MB")
    return Seen(MESSAGE)
