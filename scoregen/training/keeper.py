r"""The checkpoints of a run: written, pointed to, and pruned."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from scoregen import checkpoint
from scoregen.errors import UserError
from scoregen.lock import identity
from scoregen.parallel import gather, rank
from scoregen.training.parts import Parts


class Keeper:
    r"""Writes the checkpoints of a training, on the first process.

    Args:
        parts: of the training.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.folder = parts.folder / "checkpoints"
        if rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)  # its absence beside a log tells that checkpoints are gone
            self._place = identity(parts.folder)

    def check_folder(self) -> None:
        r"""Refuses to go on where the run folder was renamed or deleted; called on every process.

        Raises:
            UserError: on every process.
        """
        if gather(rank() == 0 and identity(self.parts.folder) != self._place)[0]:
            raise UserError(
                f"hydra.run.dir: '{self.parts.folder}' was renamed or deleted during the run, which ends after step "
                f"{self.parts.progress.step}. Leave the folder in place while a run writes there."
            )

    def save_step(self) -> None:
        r"""Writes the checkpoint of this step, and deletes older ones; called on every process.

        Raises:
            UserError: on every process, where the run folder is gone, the weights or averages are not finite, or the
                checkpoint cannot be written.
        """
        self.check_folder()
        problem = None
        if rank() == 0:
            try:
                self._save_step()
            except (UserError, OSError) as error:
                problem = str(error)
        problem = gather(problem)[0]  # all wait for the first one, and end together
        if problem is not None:
            raise UserError(problem)

    def _save_step(self) -> None:
        step, bad = self.parts.progress.step, self._not_finite()
        if bad is not None:
            raise self.diverged(f"'{bad}' is not finite after step {step}: the training diverged.")
        folder = self.folder / f"step_{step:08d}"
        self._save(folder)
        checkpoint.point_last(folder)
        if self.parts.progress.skipped_in_a_row == 0:  # else these weights may be worth less than the older ones
            self._prune()

    def save_named(self, name: str) -> None:
        r"""Writes checkpoints/NAME from within a hook, while the model holds the averages."""
        self.parts.ema.swap()
        try:
            bad = self._not_finite() if rank() == 0 else None
            if bad is not None:
                print(f"checkpoints/{name} is not written: '{bad}' is not finite.", file=sys.stderr)
            elif rank() == 0:
                self._save(self.folder / name)
        finally:
            self.parts.ema.swap()

    def diverged(self, what: str) -> UserError:
        r"""The message of a run that cannot go on: what happened, what to do, and the last checkpoint."""
        last = checkpoint.last_whole(self.folder)
        kept = f"The last finite checkpoint is '{last.resolve()}'." if last else "No checkpoint was written yet."
        return UserError(
            f"{what} Look for bad values in the data, or start a new run from good weights (init=CHECKPOINT) with a "
            f"lower trainer.optimizer.lr or trainer.precision=no. {kept}"
        )

    def _not_finite(self) -> str | None:
        r"""The name of a weight or average that is not finite, or None."""
        model, averages = self.parts.model.state_dict(), self.parts.ema.weights
        return _first_not_finite(model) or _first_not_finite(averages)

    def _save(self, folder: Path) -> None:
        parts = self.parts
        state = {"kind": type(parts.model).__name__, **vars(parts.progress)}
        checkpoint.save(
            folder,
            parts.model,
            parts.ema.weights,
            parts.optimizer,
            config=parts.config,
            state=state,
            loss=parts.loss,
        )

    def _prune(self) -> None:
        # by modification time: after a return to an earlier step, stale checkpoints of later steps go first
        own = [path for path in self.folder.glob("step_*") if path.name.removeprefix("step_").isdigit()]
        steps = sorted(own, key=lambda path: (path.stat().st_mtime_ns, path.name))
        for old in steps[: -self.parts.settings.keep_last]:
            every = self.parts.settings.keep_every
            if every is None or int(old.name.removeprefix("step_")) % every:
                shutil.rmtree(old)


def _first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floats:
        return None
    finite = torch.stack([tensor.isfinite().all() for tensor in floats.values()]).tolist()  # one wait for the device
    return next((name for name, good in zip(floats, finite, strict=True) if not good), None)
