r"""Peak memory and time of restoring one large scene: python benchmarks/large_scene.py --checkpoint RUN --side 10000

Writes a float32 GeoTIFF of side x side pixels, speckle of 4 looks with a border without data, restores it by the job
`restore`, and prints the peak memory of the process (as the system counts, maps of files too), time and speed.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

import scoregen

_ROWS = 500


def write_scene(path: Path, side: int) -> None:
    r"""A ramp of brightness with speckle; a twentieth of the columns is without data (-9999)."""
    draw = np.random.default_rng(0)
    tags = [(42113, "s", 0, "-9999", True), (33550, "d", 3, (10.0, 10.0, 0.0), True)]
    with tifffile.TiffWriter(path) as file:
        found = file.write(
            shape=(side, side),
            dtype=np.float32,
            photometric="minisblack",
            metadata=None,
            extratags=tags,
            returnoffset=True,
        )
    assert found is not None
    with path.open("r+b") as handle:
        handle.seek(found[0])
        for first in range(0, side, _ROWS):
            rows = min(_ROWS, side - first)
            scene = np.linspace(0.1, 0.8, side) * draw.gamma(4, 0.25, (rows, side))
            scene[:, : side // 20] = -9999
            handle.write(scene.astype("<f4").tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--probes", type=int, default=0, help="0: one call of the network")
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder) / "scene.tif", options.side)
        started, cpu = time.time(), time.process_time()
        out = scoregen.Restore(
            checkpoint=options.checkpoint,
            images=f"{folder}/scene.tif",
            looks=4,
            probes=options.probes,
            tile=options.tile,
            batch_size=16,
        ).run(Path(folder) / "out")
        size = (out / "images" / "scene.tif").stat().st_size
        wall, cpu = time.time() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{options.side} x {options.side} pixels, {size / 2**20:.0f} MiB: peak {peak:.0f} MiB, {wall:.0f} s "
        f"({cpu:.0f} s of CPU, {options.threads} threads), {options.side**2 / cpu / 1e6:.2f} Mpixel/s of CPU"
    )


if __name__ == "__main__":
    main()
