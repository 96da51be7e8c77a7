r"""A copy of the checkpoints of a run at a URL, written beside the training.

A checkpoint is written locally first, whole. Then a thread uploads it while the steps go on; the next checkpoint waits
for that. What the run deletes locally it deletes there. A failure is said, and tried again with the next checkpoint; a
run whose last checkpoint did not arrive ends with an error.
"""

import re
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from scoregen.errors import UserError
from scoregen.parallel import gather, rank
from scoregen.remote import Remote

KEY = "trainer.mirror"


class Mirror:
    r"""The checkpoints of a run folder, at a URL; nothing without one. It works on the first process.

    Args:
        url: of the run there, or None.
        folder: the run folder.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        self.remote = None if url is None or rank() > 0 else Remote(url, KEY)
        self.asked, self.checkpoints = url is not None, folder / "checkpoints"
        self._pool, self._work = ThreadPoolExecutor(1), None
        self._problem: str | None = None
        self._known = self._there()

    _work: Future[None] | None

    def begin(self, start: Path | None) -> None:
        r"""Called on every process before the first step: a run does not write over another one.

        Args:
            start: the checkpoint that the run goes on from, None for a new run.

        Raises:
            UserError: on every process.
        """
        if not self.asked:
            return
        problem = None
        if self.remote is not None:
            try:
                problem = self._other_run(self.remote, start)
            except UserError as error:
                problem = str(error)
        if (problem := gather(problem)[0]) is not None:
            raise UserError(problem)

    def _other_run(self, remote: Remote, start: Path | None) -> str | None:
        r"""What is wrong with the URL: it holds checkpoints, and none of them is of this run."""
        names = [name for name in remote.names("checkpoints") if name != "last"]
        own = [*(self.checkpoints / name for name in self._known), *([] if start is None else [start])]
        own = [path for path in own if start is not None and path.name in names]
        if not names or any(remote.manifest(f"checkpoints/{p.name}") == (p / "state.json").read_bytes() for p in own):
            return None
        return (
            f"{KEY}: '{remote.url}' holds checkpoints of another run ({names[0]}). Give another URL, or go on with "
            f"that run: trainer.resume={remote.url}."
        )

    def update(self) -> None:
        r"""Starts to upload what is new, and to delete there what was deleted here."""
        if self.remote is not None:
            self.wait()
            self._work = self._pool.submit(self._attempt)

    def wait(self) -> None:
        r"""Waits until what was started is done."""
        work, self._work = self._work, None
        if work is not None:
            work.result()
            if self._problem is not None:
                print(f"{self._problem} It is tried again with the next checkpoint.", file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.result()
        self._pool.shutdown()
        if self._problem is None:
            return
        text = f"{self._problem} The checkpoints in '{self.checkpoints}' are whole."
        if error is None:
            raise UserError(f"{text} The next run with trainer.resume=auto uploads them.")
        print(text, file=sys.stderr)

    def _attempt(self) -> None:
        try:
            self._problem = None
            self._update()
        except (UserError, OSError) as error:
            self._problem = str(error)

    def _update(self) -> None:
        assert self.remote is not None
        there = self._there()
        for name in sorted(there):
            self.remote.upload(self.checkpoints / name, f"checkpoints/{name}")
        if (last := self.checkpoints / "last").exists():
            self.remote.write("checkpoints/last", last.resolve().name.encode())
        for name in sorted(self._known - there):  # only what this run had
            self.remote.remove(f"checkpoints/{name}")
        self._known = there

    def _there(self) -> set[str]:
        r"""The whole checkpoints of the run folder: those of steps, and those that monitors keep."""
        if self.remote is None:
            return set()
        names = {path.parent.name for path in self.checkpoints.glob("*/state.json") if not path.parent.is_symlink()}
        return {name for name in names if re.fullmatch(r"[A-Za-z0-9_]+", name)}
