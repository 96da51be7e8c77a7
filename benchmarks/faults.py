r"""Faults on purpose: each is tried several times, and its outcome and what was lost stand beside what is wanted.

    python benchmarks/faults.py                                  # `make faults`: under 30 minutes on 2 cores
    python benchmarks/faults.py --quick                          # under 3 minutes
    python benchmarks/faults.py --rows kill signal --times 50    # the rows whose names begin so, 50 times each

The exit status is 1 if any outcome differs or anything was lost. Jobs are real processes on tiny networks; the moments
are random, by --seed.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import fault_hostile as hostile
import fault_overrides as overrides
import fault_rows as rows
from fault_jobs import MESSAGE, SAME, Bench, Seen


@dataclass
class Fault:
    r"""A row of the table: a fault, the outcome that is wanted, a trial, and how often it is tried (also --quick)."""

    name: str
    wanted: str
    trial: Callable[[Bench], Seen]
    times: int
    quick: int = 1


REFUSED = "one refused in one line"
FAULTS = [
    Fault("kill train", SAME, rows.killed("train"), 20, 3),
    Fault("kill train in a checkpoint", SAME, rows.killed_in_checkpoint, 10, 2),
    Fault("kill train, 2 processes", SAME, rows.killed("train", 2), 8),
    Fault("kill sample", SAME, rows.killed("sample"), 10),
    Fault("kill sample, 2 processes", SAME, rows.killed("sample", 2), 4, 0),
    Fault("kill certify", SAME, rows.killed("certify"), 10),
    Fault("start train twice, together", REFUSED, rows.started_twice("train", True), 8, 2),
    Fault("start train twice, one later", REFUSED, rows.started_twice("train", False), 8),
    Fault("start sample twice", REFUSED, rows.started_twice("sample", True), 5),
    Fault("start certify twice", REFUSED, rows.started_twice("certify", True), 5),
    Fault("limit of file size", "one message; goes on with room", rows.file_limit, 10, 3),
    Fault("full disk", "one message; goes on with room", rows.full_disk, 10),
    Fault("read-only file system", MESSAGE, rows.read_only, 3),
    Fault("damaged last checkpoint", "passed over, said; the same again", rows.damaged, 30, 4),
    Fault("hostile checkpoint", MESSAGE, hostile.hostile_checkpoint, 2 * len(hostile.CHECKPOINTS), 8),
    Fault("hostile data", MESSAGE, hostile.hostile_data, 2 * len(hostile.DATA), len(hostile.DATA)),
    Fault("signal to train", SAME, rows.signalled("train"), 12, 2),
    Fault("signal to train, 2 processes", SAME, rows.signalled("train", 2), 4, 0),
    Fault("signal to sample", SAME, rows.signalled("sample"), 8),
    Fault("signal to sample, 2 processes", SAME, rows.signalled("sample", 2), 4, 0),
    Fault("signal to certify", SAME, rows.signalled("certify"), 8),
    Fault("random overrides", "done, or one message", overrides.overridden, 400, 20),
]


def tried(fault: Fault, bench: Bench, times: int) -> tuple[Counter[str], int]:
    r"""The outcomes of some trials, and what was lost in all."""
    outcomes: Counter[str] = Counter()
    lost = 0
    for _ in range(times):
        try:
            seen = fault.trial(bench)
        except Exception as error:  # of the campaign itself; the other rows go on
            seen = Seen(f"{type(error).__name__}: {error}"[:300], 1)
        outcomes[seen.outcome] += 1
        lost += seen.lost
        for folder in bench.root.glob("trial_*"):
            shutil.rmtree(folder, ignore_errors=True)
    return outcomes, lost


def line(fault: Fault, outcomes: Counter[str], lost: int, seconds: float) -> str:
    r"""A row of the table, and below it each outcome that differs."""
    good, times = outcomes[fault.wanted], sum(outcomes.values())
    first = f"| {fault.name} | {times} | {fault.wanted} | {good} of {times} | {lost} | {seconds:.0f} s |"
    return "\n".join([first, *(f"  DIFFERS {n} x {seen}" for seen, n in outcomes.items() if seen != fault.wanted)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=[""], help="beginnings of the names of rows")
    parser.add_argument("--times", type=int, help="of each row")
    parser.add_argument("--quick", action="store_true", help="each row once or some times")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chosen = [fault for fault in FAULTS if any(fault.name.startswith(start) for start in args.rows)]
    if not chosen:
        parser.error(f"--rows: no row begins so. Rows: {', '.join(fault.name for fault in FAULTS)}.")
    print("| fault | times | wanted | seen | lost | time |\n|---|---|---|---|---|---|", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        bench, mounts = Bench(Path(folder).resolve(), args.seed), rows.can_mount(Path(folder))
        for fault in chosen:
            times = args.times or (fault.quick if args.quick else fault.times)
            if fault.trial in (rows.full_disk, rows.read_only) and not mounts:
                print(f"| {fault.name} | 0 | {fault.wanted} | not tried: needs the right to mount | 0 | 0 s |")
                continue
            began = time.monotonic()
            outcomes, lost = tried(fault, bench, times)
            bad += lost > 0 or set(outcomes) - {fault.wanted} != set()
            print(line(fault, outcomes, lost, time.monotonic() - began) if times else "", end="\n" if times else "")
            sys.stdout.flush()
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
