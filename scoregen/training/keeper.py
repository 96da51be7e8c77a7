r"""The checkpoints of a run: written, pointed to, and pruned."""

import shutil
from pathlib import Path

from scoregen import checkpoint
from scoregen.parallel import rank
from scoregen.training.parts import Parts


class Keeper:
    r"""Writes the checkpoints of a training, on the first process.

    Args:
        parts: of the training.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.folder = parts.folder / "checkpoints"

    def save_step(self) -> None:
        r"""Writes the checkpoint of this step, and deletes older ones; called on every process."""
        if rank() == 0:
            folder = self.folder / f"step_{self.parts.progress.step:08d}"
            self._save(folder)
            checkpoint.point_last(folder)
            self._prune()
        self.parts.accelerator.wait_for_everyone()

    def save_named(self, name: str) -> None:
        r"""Writes checkpoints/NAME from within a hook, while the model holds the averages."""
        self.parts.ema.swap()
        try:
            if rank() == 0:
                self._save(self.folder / name)
        finally:
            self.parts.ema.swap()

    def last(self) -> str:
        r"""The sentence that names the last checkpoint."""
        last = self.folder / "last"
        if not last.exists():
            return "No checkpoint was written yet."
        return f"The last checkpoint, '{last.resolve()}', is intact."

    def _save(self, folder: Path) -> None:
        parts = self.parts
        state = {"kind": type(parts.model).__name__, **vars(parts.progress)}
        checkpoint.save(folder, parts.model, parts.ema.weights, parts.optimizer, parts.config, state, parts.loss)

    def _prune(self) -> None:
        # by modification time: after a return to an earlier step, stale checkpoints of later steps go first
        own = [path for path in self.folder.glob("step_*") if path.name.removeprefix("step_").isdigit()]
        steps = sorted(own, key=lambda path: (path.stat().st_mtime_ns, path.name))
        for old in steps[: -self.parts.settings.keep_last]:
            every = self.parts.settings.keep_every
            if every is None or int(old.name.removeprefix("step_")) % every:
                shutil.rmtree(old)
