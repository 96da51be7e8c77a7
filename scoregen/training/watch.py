r"""Runs the hooks of a training on its averaged weights."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from scoregen.errors import UserError
from scoregen.models.compiled import as_written
from scoregen.parallel import Failure, PeerFailed, gather, share
from scoregen.training.hooks import Hook, Moment
from scoregen.training.parts import Parts
from scoregen.training.sharding import whole


@dataclass(frozen=True)
class Failed:
    r"""A hook failed on one of the processes.

    Args:
        cause: the exception of this process, or a message about another process.
        due: classes of the hooks that have not run.
    """

    cause: Exception
    due: list[str]


class Watch:
    r"""The hooks of a training, and when they run.

    Args:
        parts: of the training.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def begin(self) -> None:
        r"""Tells the hooks where the run stands."""
        for hook in self.parts.hooks:
            hook.begin(self.parts.folder, self.parts.progress.step)

    @property
    def stop(self) -> bool:
        r"""Whether a hook ends the training."""
        return any(hook.stop for hook in self.parts.hooks)

    def due(self, names: Sequence[str] | None = None) -> list[Hook]:
        r"""The hooks that may run at this step (of these classes only), if any of them does."""
        waiting = [hook for hook in self.parts.hooks if names is None or type(hook).__name__ in names]
        return waiting if any(self._is_due(hook) for hook in waiting) else []

    def run(self, waiting: list[Hook], moment: Moment) -> Failed | None:
        r"""Runs those of these hooks whose step it is, until one of them fails on any process."""
        parts = self.parts
        share(parts.model.buffers(), parts.ema.buffers())  # running statistics are each process's own until here
        parts.model.eval()
        parts.ema.swap()
        try:
            with as_written(parts.model), whole(parts.model, parts.settings.sharding):
                return self._run(waiting, moment)
        finally:
            parts.ema.swap()
            parts.model.train()

    def _run(self, waiting: list[Hook], moment: Moment) -> Failed | None:
        while waiting:
            error = _attempt(waiting[0], moment) if self._is_due(waiting[0]) else None
            if error is not None:
                return Failed(error, [type(hook).__name__ for hook in waiting])
            waiting = waiting[1:]
        return None

    def _is_due(self, hook: Hook) -> bool:
        # the step after which a hook ends the training is the last one for those that follow
        step = self.parts.progress.step
        return step == self.parts.settings.steps or step % hook.every == 0 or self.stop


def _attempt(hook: Hook, moment: Moment) -> Exception | None:
    r"""Runs a hook; returns the exception of any process, or None, so that all processes stop together.

    A process that fails says so at the point where the others exchange something next, inside the hook or after it.
    """
    failure: Exception | None = None
    try:
        hook(moment)
        gather(None)
    except PeerFailed as error:
        failure = UserError(f"{type(hook).__name__}: {error}.")
    except Exception as error:
        failure = error
        with suppress(PeerFailed):
            gather(Failure(f"{type(error).__name__}: {error}"))
    return failure
