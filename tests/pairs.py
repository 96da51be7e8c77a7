r"""Two processes that work together, started without the seconds of importing torch.

`pair` is what `torchrun --nproc_per_node 2` does for a test: RANK and its like are set, and a process that fails ends
the other one. One server a test process imports everything once and forks both; it computes nothing itself, so they
begin as new ones do. Started as a script, this file is that server.
"""

import atexit
import functools
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
GRACE = 30  # seconds that a process has to end, as in torchrun


class Pair:
    r"""Two processes at work; `communicate` waits for them."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.returncode: int | None = None

    def communicate(self, timeout: float) -> tuple[str]:
        r"""What both wrote; raises TimeoutError."""
        self.connection.settimeout(timeout)
        with self.connection, self.connection.makefile("rb") as file:
            output, _, status = file.read().decode().rpartition("\n")
        self.returncode = int(status)
        return (output,)


def pair(cwd: Path, script: str, *argv: str) -> Pair:
    r"""Starts two processes that run a script of this project, or one of an absolute path."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server()[0])
    order = {"cwd": str(cwd), "argv": [str(ROOT / script), *map(str, argv)], "environment": dict(os.environ)}
    connection.sendall(json.dumps(order).encode() + b"\n")
    return Pair(connection)


@functools.cache
def server() -> tuple[str, subprocess.Popen[bytes]]:
    r"""The address of this process's server, which ends with it."""
    address = tempfile.mkdtemp(prefix="pairs") + "/socket"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__, address], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return address, process


def serve(address: str) -> list[str]:
    r"""Waits for orders, until the tests end; returns in each process of a pair, with its arguments."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return both(connection)
        connection.close()
    shutil.rmtree(Path(address).parent)
    os._exit(0)


def both(connection: socket.socket) -> list[str]:
    r"""Returns in the two processes; the one that started them waits for them and gives their status."""
    with connection.makefile("r") as file:
        order = json.loads(file.readline())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"], WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    started = []
    for rank in ("0", "1"):
        started.append(os.fork())
        if started[-1] == 0:
            os.environ.update(RANK=rank, LOCAL_RANK=rank)
            with open(os.devnull) as nothing:
                for stream, file in enumerate((nothing, connection, connection)):
                    os.dup2(file.fileno(), stream)
            connection.close()
            return order["argv"]
    connection.sendall(f"\n{wait(started)}".encode())
    os._exit(0)


def wait(processes: list[int]) -> int:
    r"""0, or the status of the first process that failed, after which the other one is ended."""
    status = 0
    while processes:
        ended, code = os.wait()
        if ended in processes:
            processes.remove(ended)
        if code and not status:
            status = os.waitstatus_to_exitcode(code)
            for other in processes:
                os.kill(other, signal.SIGTERM)
                signal.signal(signal.SIGALRM, lambda *_, other=other: os.kill(other, signal.SIGKILL))
                signal.alarm(GRACE)
    return status


def run(script: str, *argv: str) -> int:
    r"""The status of a script. The interpreter is not taken down piece by piece: of a fork that takes a second."""
    sys.argv, sys.path[0] = [script, *argv], str(Path(script).parent)
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    import accelerate  # noqa: F401
    import hydra  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch._dynamo  # noqa: F401  the first step of an optimizer imports it

    import scoregen.jobs  # noqa: F401

    gc.freeze()
    os._exit(run(*serve(sys.argv[1])))
