r"""Work that consists of items ends between two of them, on all processes, where one of them got a signal.

A job opens `interruptible`; what works item by item below it calls `check_folder` before it writes an item and
`end_if_asked` after it. Outside of a job, and inside a training, which ends between two steps, both do nothing.
"""

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed as dist

from scoregen.errors import Interrupted
from scoregen.lock import Owner
from scoregen.parallel import Failure, PeerFailed, gather, world_size
from scoregen.signals import Signals

_numbers = itertools.count()  # the same on all processes, which open one after the other alike
_open: list["Interruption"] = []


class Interruption(Signals):
    r"""What ends a job from outside, told to all of its processes by the store of the launcher.

    Args:
        owner: of its folder.
    """

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self.owners = [owner]
        self._key = f"scoregen/end/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{next(_numbers)}"
        self._store = None
        if dist.is_initialized() and world_size() > 1:
            place, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            self._store = dist.TCPStore(place, port, is_master=False)  # type: ignore[attr-defined]  # it is exported

    def asked(self) -> signal.Signals | None:
        r"""The signal that came to this process or another one."""
        if self._store is None:
            return self.signal
        if self.signal is not None:
            self._store.set(self._key, str(int(self.signal)))
        elif self._store.check([self._key]):
            self.signal = signal.Signals(int(self._store.get(self._key)))
        return self.signal

    def ended(self, by: signal.Signals) -> Interrupted:
        r"""The end of the job, in one line that says how to go on."""
        return Interrupted(
            128 + by,
            f"{by.name} ended the job before it was done. What is finished stays in '{self.owners[0].folder}'. Give "
            "the same command with this folder as out to resume it.",
        )


@contextmanager
def interruptible(owner: Owner) -> Iterator[None]:
    r"""A job in its folder, which a signal ends between two items; inside another job the outer one is ended.

    Raises:
        Interrupted: on every process, where one of them got a signal.
    """
    if _open:
        _open[-1].owners.append(owner)
        try:
            yield
        finally:
            _open[-1].owners.remove(owner)
        return
    with Interruption(owner) as current:
        _open.append(current)
        try:
            yield
        except Interrupted as end:  # the others may wait for this one where they exchange something next
            with suppress(PeerFailed):
                gather(Failure(str(end)))
            raise
        except PeerFailed as error:
            by = current.asked()
            raise error if by is None else current.ended(by) from None
        finally:
            _open.remove(current)


def end_if_asked() -> None:
    r"""Ends the job here, between two items, where a signal asks for it.

    Raises:
        Interrupted: a signal came.
    """
    if _open and (by := _open[-1].asked()) is not None:
        raise _open[-1].ended(by)


def check_folder() -> None:
    r"""Refuses to write where the folder of the job was renamed or deleted.

    Raises:
        UserError: it was.
    """
    for owner in _open[-1].owners if _open else ():
        owner.check()
