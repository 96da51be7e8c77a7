r"""A trace of some steps of a training, for chrome://tracing, Perfetto or TensorBoard's profiler plugin."""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scoregen.parallel import rank

_LEAVE = 3  # steps before the trace: readers start, networks compile, allocators fill


class Profile:
    r"""Records steps while it is entered, on every process; nothing where no steps are asked for.

    Args:
        steps: to record; None for none.
        folder: the run folder; the trace goes to profile/trace_RANK.json.
    """

    def __init__(self, steps: int | None, folder: Path) -> None:
        self.steps, self.path = steps, folder / "profile" / f"trace_{rank()}.json"
        self._profiler: Any = None
        self._written = False
        self._seen = 0

    def __enter__(self) -> Self:
        if self.steps is not None:
            from torch.profiler import profile, schedule

            plan = schedule(wait=_LEAVE - 1, warmup=1, active=self.steps, repeat=1)
            self._profiler = profile(schedule=plan, on_trace_ready=self._write, record_shapes=True)
            self._profiler.start()
        return self

    def step(self) -> None:
        r"""Called after each step of the training."""
        if self._profiler is not None:
            self._seen += 1
            self._profiler.step()
            if self._written:
                self._end()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profiler is not None:
            self._end()
            if not self._written and rank() == 0:
                print(
                    f"trainer.profile: nothing was recorded: the run ended after {self._seen} steps, of which "
                    f"the first {_LEAVE} are left out. Give more trainer.steps.",
                    file=sys.stderr,
                )

    def _end(self) -> None:
        profiler, self._profiler = self._profiler, None
        profiler.stop()

    def _write(self, profiler: Any) -> None:
        recorded = self._seen - _LEAVE
        if self._written or recorded < 1:
            return
        self._written = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        profiler.export_chrome_trace(str(partial))
        os.replace(partial, self.path)
        if rank() == 0:
            print(
                f"profile: {recorded} steps in '{self.path}'. Open it at https://ui.perfetto.dev or chrome://tracing.",
                file=sys.stderr,
            )
