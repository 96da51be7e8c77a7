r"""Runs the benchmarks that need no trained model, one after another, and writes one page of their tables.

    python benchmarks/bench.py                          # outputs/bench/report.md
    python benchmarks/bench.py --data data              # also certification, on MNIST in the folder
    python benchmarks/bench.py --only solvers --again   # one of them, anew

The page names the machine, the versions of all peers, each command, its time and its output. A benchmark that fails
(its file says when) is on the page too; the others go on, and the status is 1. What is done is not run again, so that
an interrupted run goes on where it stopped.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
PLAIN = ("training", "solvers", "likelihood", "conditioning", "consistency", "smoothness")
CERTIFY = ("speed", "overhead", "ladder", "attack")
PACKAGES = (
    *("torch", "diffusers", "accelerate", "numpy", "azula", "adversarial-robustness-toolbox", "scikit-image"),
    *("PyWavelets", "statsmodels", "scikit-learn"),
)


def commands(data: str | None) -> dict[str, list[str]]:
    r"""The name and the command of each benchmark."""
    found = {name: [f"{name}.py"] for name in PLAIN}
    parts = CERTIFY if data else ()
    return found | {f"certify, {part}": ["certify.py", "--data", str(data), "--part", part] for part in parts}


def machine() -> str:
    r"""Processor, cores, accelerator and versions, in two lines."""
    import torch

    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    processor = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    accelerator = torch.accelerator.current_accelerator()
    parts = [f"{os.cpu_count()} cores of {processor}", f"accelerator: {accelerator or 'none'}", platform.system()]
    return f"Machine: {', '.join(parts)}.\nVersions: Python {platform.python_version()}, {', '.join(_versions())}."


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # no Linux
        return []


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def run(name: str, command: Sequence[str], folder: Path) -> dict[str, object]:
    r"""Runs a benchmark, shows its output while it comes, and keeps it with status and seconds."""
    print(f"== {name}: python benchmarks/{' '.join(command)}", flush=True)
    start, output = time.perf_counter(), []
    full = [sys.executable, str(HERE / command[0]), *command[1:]]
    with subprocess.Popen(full, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            output.append(line)
    seconds = time.perf_counter() - start
    done = {"command": list(command), "status": process.returncode, "seconds": seconds, "output": "".join(output)}
    folder.mkdir(parents=True, exist_ok=True)
    kept_at(folder, name).write_text(json.dumps(done))
    return done


def kept_at(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(', ', '_')}.json"


def finished(name: str, command: Sequence[str], folder: Path) -> bool:
    r"""Whether this command was run here before and passed."""
    path = kept_at(folder, name)
    return path.exists() and (kept := json.loads(path.read_text()))["status"] == 0 and kept["command"] == list(command)


def page(found: Mapping[str, Mapping[str, object]]) -> str:
    r"""The page in Markdown: machine and versions, then each benchmark with its output."""
    parts = ["# Benchmarks", machine()]
    for name, kept in found.items():
        status = "passed" if kept["status"] == 0 else f"FAILED, status {kept['status']}"
        command = " ".join(str(part) for part in kept["command"])  # type: ignore[attr-defined]  # a list, by `run`
        parts.append(f"## {name}\n\n`python benchmarks/{command}`: {status} after {kept['seconds']:.0f} s")
        parts.append(str(kept["output"]).strip())
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of MNIST, for certification; without it that is left out")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these benchmarks alone")
    parser.add_argument("--again", action="store_true", help="also what was done before")
    options = parser.parse_args()
    known = commands(options.data)
    if unknown := sorted(set(options.only or ()) - set(known)):
        parser.error(f"--only: there is no benchmark {unknown[0]!r}. Choose among {', '.join(map(repr, known))}.")
    for name in options.only or known:
        if options.again or not finished(name, known[name], options.out):
            run(name, known[name], options.out)
    kept = {name: kept_at(options.out, name) for name in known}
    found = {name: json.loads(path.read_text()) for name, path in kept.items() if path.exists()}
    (options.out / "report.md").write_text(page(found))
    failed = [name for name, result in found.items() if result["status"] != 0]
    print(f"\n{options.out / 'report.md'}" + (f"\nfailed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
