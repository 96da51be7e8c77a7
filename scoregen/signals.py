r"""Signals that end a piece of work at its next good place: SIGTERM, SIGINT and SIGUSR1."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

_ECHO = 1.0  # seconds; launchers and terminals send one wish twice


class Signals:
    r"""Takes note of SIGTERM, SIGINT and SIGUSR1 while it is entered; a second signal ends the process at once.

    Attributes:
        signal: the one that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._noted = 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other one handle signals
            names = ("SIGTERM", "SIGINT", "SIGUSR1")
            numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._noted = signal.Signals(number), now
        elif now - self._noted > _ECHO:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
