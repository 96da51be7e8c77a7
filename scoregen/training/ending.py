r"""Ends of a training that come from outside: signals and a limit of time, agreed between the processes.

A wish to end is an exit status: 128 + n for signal n, 75 for the limit of time. The processes exchange their wishes
once a step, by gloo between the hosts, and read at the end of a step what was sent at the end of the one before. So
the exchange runs beside the step, nothing waits for a device, and all processes end after the same step.
"""

import time
from datetime import timedelta
from types import TracebackType

import torch
import torch.distributed as dist

from scoregen.signals import Signals

NOT_FINISHED = 75  # EX_TEMPFAIL of sysexits.h


class Ending(Signals):
    r"""Takes note of SIGTERM, SIGINT and SIGUSR1 while it is entered; a second signal ends the process at once.

    Args:
        max_hours: hours from now to the limit of time; None for no limit.
        timeout: minutes that a process waits for the others.
    """

    def __init__(self, max_hours: float | None = None, timeout: float = 30.0) -> None:
        super().__init__()
        self.deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self._group = _group(timeout) if dist.is_initialized() else None
        self._sent: tuple[torch.Tensor, dist.Work] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._group is not None and error is None:
            self._received()
            dist.destroy_process_group(self._group)

    def wish(self) -> int:
        r"""The exit status with which this process wants to end, 0 for none."""
        if self.signal is not None:
            return 128 + self.signal
        return NOT_FINISHED if self.deadline is not None and time.monotonic() > self.deadline else 0

    def agreed(self) -> int:
        r"""The exit status with which all processes end after this step, 0 for none; called once a step by all."""
        if self._group is None:
            return self.wish()
        before = self._received()
        value = torch.tensor(self.wish())
        work = dist.all_reduce(value, dist.ReduceOp.MAX, self._group, async_op=True)
        self._sent = (value, work)
        return before

    def _received(self) -> int:
        if self._sent is None:
            return 0
        value, work = self._sent
        work.wait()
        return int(value)


def _group(timeout: float) -> dist.ProcessGroup:
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timedelta(minutes=timeout))
    return group
