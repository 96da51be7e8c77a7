r"""What reading pictures costs beside torchvision's ImageFolder: start-up, memory and images a second.

    python benchmarks/data.py            # 1,000, 20,000 and 100,000 pictures of 64 x 64 in 10 classes; 8 minutes
    python benchmarks/data.py --quick    # 1,000 and 5,000; 1 minute

Pictures are generated in a temporary folder, which is removed. Start-up is that of a process of its own whose imports
are done, up to the first picture; memory is what it takes more. Images a second are of float tensors in [0, 1], in
batches of 128 in random order, on one thread; the kinds take turns, and medians of the rounds are printed.
"""

import argparse
import importlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

SIDE, BATCH, CLASSES, CONTENTS = 64, 128, 10, 500
OURS = ("folder", "shards", "hf")


def contents() -> list[bytes]:
    r"""PNGs of smooth noise, about 6 kB each."""
    generator, found = np.random.default_rng(0), []
    for coarse in generator.integers(0, 256, (CONTENTS, 8, 8, 3), dtype=np.uint8):
        file = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "PNG", compress_level=1)
        found.append(file.getvalue())
    return found


def write(folder: Path, count: int) -> None:
    r"""`count` pictures as a folder, as tar files and, where datasets is installed, as a table."""
    pictures = contents()
    for label in range(CLASSES):
        (folder / "folder" / f"class{label}").mkdir(parents=True)
    (folder / "shards").mkdir()
    for k in range(count):
        place = folder / "folder" / f"class{k % CLASSES}" / f"{k:06}.png"
        first = folder / "folder" / f"class{k % CONTENTS % CLASSES}" / f"{k % CONTENTS:06}.png"
        if k < CONTENTS or not linked(first, place):
            place.write_bytes(pictures[k % CONTENTS])
    for start in range(0, count, 10_000):
        with tarfile.open(folder / "shards" / f"{start:06}.tar", "w") as archive:
            for k in range(start, min(start + 10_000, count)):
                add(archive, f"{k:06}.png", pictures[k % CONTENTS])
                add(archive, f"{k:06}.cls", b"%d" % (k % CLASSES))
    write_table(folder / "hf", [pictures[k % CONTENTS] for k in range(count)])


def linked(first: Path, place: Path) -> bool:
    r"""A second name for a file, which takes no room; False where the file system has none to give."""
    try:
        os.link(first, place)
    except OSError:
        return False
    return True


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def write_table(folder: Path, pictures: list[bytes]) -> None:
    from scoregen.compat import repair_torchvision

    repair_torchvision()
    try:
        import datasets
    except ImportError:
        return
    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {
        "image": [{"bytes": p, "path": None} for p in pictures],
        "label": [k % CLASSES for k in range(len(pictures))],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder)


def make(kind: str, folder: Path) -> Any:
    r"""The training data: a part of ours, or an ImageFolder."""
    from torchvision import datasets
    from torchvision.transforms.v2 import functional

    from scoregen import data

    if kind == "ImageFolder":
        return datasets.ImageFolder(str(folder / "folder"), lambda image: functional.pil_to_tensor(image) / 255)
    classes: dict[str, Callable[[str], data.Source]] = {
        "folder": data.Folder,
        "shards": data.Shards,
        "hf": data.HuggingFace,
    }
    return classes[kind](str(folder / kind)).train


def batches(found: Any, workers: int) -> Iterator[int]:
    r"""The sizes of batches of float tensors in [0, 1], without end."""
    from torch.utils.data import DataLoader

    from scoregen.data import Batches, Dataset

    if isinstance(found, Dataset):
        sampler = Batches(len(found), BATCH, 1, 0, 1, 0, 0, 10**6)
        for x, _ in DataLoader(found, batch_sampler=sampler, collate_fn=lambda batch: batch, num_workers=workers):
            yield len(found.units(x))
    while True:
        for x, _ in DataLoader(found, BATCH, shuffle=True, num_workers=workers):
            yield len(x)


def rate(found: Any, workers: int, seconds: float) -> float:
    r"""Images a second; the first batches, which start the workers and what they have prepared, are left out."""
    loader = batches(found, workers)
    for _ in range(2 + 2 * workers):
        next(loader)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        count += next(loader)
    return count / (time.perf_counter() - start)


def resident() -> int:
    r"""Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def start_up(kind: str, folder: Path) -> dict[str, float]:
    r"""Seconds and MB until the first picture is there, in this process, whose imports are done."""
    before, start = resident(), time.perf_counter()
    found = make(kind, folder)
    found[0]
    return {"start": time.perf_counter() - start, "memory": (resident() - before) / 2**20}


def rates(kinds: list[str], folder: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    r"""Images a second of each kind with 0 and 2 workers, a number a round; the kinds take turns."""
    data = {kind: make(kind, folder) for kind in kinds}
    found: dict[str, list[float]] = {f"{kind} {workers}": [] for workers in (0, 2) for kind in kinds}
    for _ in range(rounds):
        for name, numbers in found.items():
            kind, workers = name.split()
            numbers.append(rate(data[kind], int(workers), seconds))
    return found


def measure(kinds: str, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    r"""In this process; without rounds the start of one kind."""
    from scoregen.compat import repair_torchvision

    torch.set_num_threads(1)
    repair_torchvision()
    for name in ("torchvision.transforms.v2", "scoregen.data", *(["datasets"] if "hf" in kinds else [])):
        importlib.import_module(name)
    return rates(kinds.split(","), folder, rounds, seconds) if rounds else start_up(kinds, folder)


def run(kinds: str, folder: Path, rounds: int = 0, seconds: float = 0.0) -> dict[str, Any]:
    r"""`measure` in a process of its own, with caches of its own."""
    command = [sys.executable, __file__, "--one", kinds, str(folder), str(rounds), str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(folder: Path, count: int, rounds: int, seconds: float) -> None:
    r"""A line for each kind of data."""
    write(folder, count)
    kinds = ["ImageFolder", *(kind for kind in OURS if (folder / kind).exists())]
    starts = {kind: [run(kind, folder) for _ in range(2)] for kind in kinds}
    found = run(",".join(kinds), folder, rounds, seconds)
    for kind in kinds:
        first, again = starts[kind]
        numbers = [f"{count:,}", kind, f"{first['start']:.2f}", f"{again['start']:.2f}", f"{first['memory']:.0f}"]
        for workers in (0, 2):
            own, theirs = found[f"{kind} {workers}"], found[f"{kinds[0]} {workers}"]
            ratio = statistics.median(a / b for a, b in zip(own, theirs, strict=True))
            numbers += [f"{statistics.median(own):,.0f}", f"{ratio:.2f}"]
        print(f"| {' | '.join(numbers)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 and 5,000 pictures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement of images a second")
    parser.add_argument("--one", nargs=4, metavar=("KINDS", "FOLDER", "ROUNDS", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kinds, folder, rounds, seconds = options.one
        print(json.dumps(measure(kinds, Path(folder), int(rounds), float(seconds))))
        return
    print("| pictures | data | start-up, s | again, s | memory, MB | images/s, 0 workers | ratio | 2 workers | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for count in (1_000, 5_000) if options.quick else (1_000, 20_000, 100_000):
        folder = Path(tempfile.mkdtemp(prefix="benchmark_data_"))
        try:
            table(folder, count, options.rounds, options.seconds)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
