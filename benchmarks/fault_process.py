r"""Jobs in processes of their own, which start at once: they are forked from one that has imported everything."""

import importlib
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: its threads would not survive a fork
sys.path.insert(0, str(Path(__file__).parents[1]))
import hydra

from scoregen import interruption, jobs, lock, losses, metrics, monitors, smoothing, training
from scoregen.command_line import run_job

for _module in ("accelerate", "diffusers", "jinja2", "sklearn.datasets", "matplotlib.figure", "torch.distributed"):
    importlib.import_module(_module)
_ = (hydra, interruption, jobs, lock, losses, metrics, monitors, smoothing, training)  # imported for the children
PATIENCE = 120.0  # seconds


@dataclass
class Ended:
    r"""How a process ended: -n by signal n, as `subprocess` has it; what it printed; its largest memory in MB; when."""

    status: int
    output: str
    errors: str
    memory: float
    began: float
    seconds: float


class Child:
    r"""A job in a process of its own.

    Args:
        job: its name. overrides: as on the command line.
        log: file for what it prints; errors go beside it.
        limit: bytes that a file may have, as on a full disk.
        processes: (rank, number, port) of a launcher.
    """

    def __init__(
        self,
        job: str,
        overrides: Sequence[str],
        log: Path,
        limit: int | None = None,
        processes: tuple[int, int, int] | None = None,
    ) -> None:
        self.log, self.began = log, time.monotonic()
        self.ended: Ended | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._run(job, list(overrides), limit, processes)

    def _run(self, job: str, overrides: list[str], limit: int | None, processes: tuple[int, int, int] | None) -> None:
        status = 70
        try:
            for number, path in ((1, self.log), (2, self.log.with_suffix(".err"))):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.chdir(self.log.parent)
            if processes is not None:
                rank, number, port = map(str, processes)
                os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            run_job(job, overrides)
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
            status = 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            os._exit(status)

    def send(self, number: int) -> None:
        r"""Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> Ended | None:
        r"""How it ended, or None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self, seconds: float = PATIENCE) -> Ended:
        r"""How it ended; it is killed after some seconds."""
        end = time.monotonic() + seconds
        while (ended := self.poll()) is None and time.monotonic() < end:
            time.sleep(0.005)
        if ended is None:
            os.kill(self.pid, signal.SIGKILL)
            ended = self._wait(0)
            assert ended is not None
            ended.errors += f"\nno end after {seconds:g} s"
        return ended

    def kill_after(self, seconds: float) -> Ended:
        r"""Lets it run for some seconds, then kills it."""
        time.sleep(seconds)
        self.send(signal.SIGKILL)
        return self.wait()

    def _wait(self, options: int) -> Ended | None:
        if self.ended is None:
            pid, status, usage = os.wait4(self.pid, options)
            if pid:
                texts = [_read(path) for path in (self.log, self.log.with_suffix(".err"))]
                code, memory = os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024
                self.ended = Ended(code, *texts, memory, self.began, time.monotonic() - self.began)
        return self.ended


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def free_port() -> int:
    r"""A port that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def own_memory() -> float:
    r"""The memory of this process, which its children begin with, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_message(ended: Ended) -> str:
    r"""What was told: "one message", or what was told instead."""
    lines = [line for line in ended.errors.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        return f"traceback: {lines[-1]:.160}"
    return "one message" if len(lines) == 1 else f"{len(lines)} lines: {' / '.join(lines):.160}"
