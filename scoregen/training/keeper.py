r"""The checkpoints of a run: written, pointed to, and pruned."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoregen import averages, checkpoint
from scoregen.errors import UserError
from scoregen.lock import identity
from scoregen.parallel import gather, rank
from scoregen.training.parts import Parts
from scoregen.training.scaling import state_of
from scoregen.training.shard_keeper import save_shards, save_whole, together
from scoregen.training.sharding import free_model, gather_model, is_sharded, local


class Keeper:
    r"""Writes the checkpoints of a training, on the first process.

    Args:
        parts: of the training.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.folder = parts.folder / "checkpoints"
        self.sharded = is_sharded(parts.model)
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

    def save_step(self, last: bool = False) -> None:
        r"""Writes the checkpoint of this step, and deletes older ones; called on every process.

        Args:
            last: whether the training ends with it, so that a sharded one is written whole.

        Raises:
            UserError: on every process, where the run folder is gone, the weights or averages are not finite, or the
                checkpoint cannot be written.
        """
        self.check_folder()
        if not self.sharded:
            together(self._save_step)  # all wait for the first one, and end together
            return
        step, folder = self.parts.progress.step, self._step_folder()
        found = gather(self._not_finite())
        together(lambda: self._refuse(next((bad for bad in found if bad is not None), None)))
        save = save_whole if step == self.parts.settings.steps or last else save_shards
        save(folder, self._contents(), self.parts.config, self._state())
        together(lambda: self._point(folder))

    def _save_step(self) -> None:
        self._refuse(self._not_finite())
        folder = self._step_folder()
        self._save(folder)
        self._point(folder)

    def _step_folder(self) -> Path:
        return self.folder / f"step_{self.parts.progress.step:08d}"

    def _refuse(self, bad: str | None) -> None:
        if bad is not None:
            step = self.parts.progress.step
            raise self.diverged(f"'{bad}' is not finite after step {step}: the training diverged.")

    def _point(self, folder: Path) -> None:
        checkpoint.point_last(folder)
        if self.parts.progress.skipped_in_a_row == 0:  # else these weights may be worth less than the older ones
            self._prune()

    def save_averages(self) -> None:
        r"""Writes the snapshot of the averages of this step into the run folder; called on every process.

        Raises:
            UserError: on every process, where the run folder is gone, an average is not finite, or writing fails.
        """
        self.check_folder()
        together(self._save_averages)

    def _save_averages(self) -> None:
        moment = self._powers()
        assert moment is not None
        for values in moment.values.values():
            self._refuse(_first_not_finite(values))
        averages.write(averages.path_of(self.parts.folder, moment.step), moment, half=True)

    def _powers(self) -> averages.Moment | None:
        powers, step = self.parts.powers, self.parts.progress.step
        return None if powers is None else powers.moment(step, step * self.parts.settings.batch_size)

    def save_named(self, name: str) -> None:
        r"""Writes checkpoints/NAME from within a hook, while the model holds the averages."""
        free_model(self.parts.model)
        self.parts.ema.swap()
        try:
            found = gather(self._not_finite()) if self.sharded else [self._not_finite() if rank() == 0 else None]
            bad = next((bad for bad in found if bad is not None), None)
            if bad is not None and rank() == 0:
                print(f"checkpoints/{name} is not written: '{bad}' is not finite.", file=sys.stderr)
            elif bad is None and self.sharded:
                save_whole(self.folder / name, self._contents(), self.parts.config, self._state())
            elif bad is None and rank() == 0:
                self._save(self.folder / name)
        finally:
            self.parts.ema.swap()
            gather_model(self.parts.model)

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
        checkpoint.save(folder, self._contents(), config=self.parts.config, state=self._state())

    def _state(self) -> dict[str, Any]:
        parts = self.parts
        return {"kind": type(parts.model).__name__, **vars(parts.progress), **state_of(parts.accelerator)}

    def _contents(self) -> checkpoint.Contents:
        parts = self.parts
        found = checkpoint.contents_of(parts.model, parts.ema.weights, parts.optimizer, parts.loss)
        return replace(found, powers=self._powers())

    def _prune(self) -> None:
        # by modification time: after a return to an earlier step, stale checkpoints of later steps go first
        own = [path for path in self.folder.glob("step_*") if path.name.removeprefix("step_").isdigit()]
        steps = sorted(own, key=lambda path: (path.stat().st_mtime_ns, path.name))
        for old in steps[: -self.parts.settings.keep_last]:
            every = self.parts.settings.keep_every
            if every is None or int(old.name.removeprefix("step_")) % every:
                shutil.rmtree(old)


def _first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    floats = {name: local(tensor) for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floats:
        return None
    finite = torch.stack([tensor.isfinite().all() for tensor in floats.values()]).tolist()  # one wait for the device
    return next((name for name, good in zip(floats, finite, strict=True) if not good), None)
