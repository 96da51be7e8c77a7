r"""The order of a run: steps, log lines, hooks, checkpoints."""

import math
import signal
import sys
from pathlib import Path

from scoregen.averages import snapshot_steps
from scoregen.data.damage import Tolerant
from scoregen.errors import Interrupted
from scoregen.parallel import rank
from scoregen.progress import progress
from scoregen.training.ending import NOT_FINISHED, Ending
from scoregen.training.hooks import Hook, Moment
from scoregen.training.keeper import Keeper
from scoregen.training.meter import Meter
from scoregen.training.mirror import Mirror
from scoregen.training.parts import Parts
from scoregen.training.profile import Profile
from scoregen.training.step import Step
from scoregen.training.watch import Watch


class Loop:
    r"""The steps of a training from where it stands to the last one.

    Args:
        parts: of the training.
        ending: what may end it from outside.
    """

    def __init__(self, parts: Parts, ending: Ending) -> None:
        self.parts, self.ending = parts, ending
        self.step, self.keeper, self.watch = Step(parts), Keeper(parts), Watch(parts)
        settings, done = parts.settings, parts.progress
        self.meter = Meter(settings.steps, settings.batch_size, parts.accelerator.device, done)
        self.profile, self.mirror = Profile(settings.profile, parts.folder), Mirror(settings.mirror, parts.folder)
        self.snapshots = snapshot_steps(settings.steps, settings.ema_snapshots)
        self.bar = progress(total=settings.steps, initial=done.step, description="training", unit="step")

    def run(self) -> None:
        r"""Runs it.

        Raises:
            UserError: the training diverged (which log steps tell), the run folder is gone, or a hook failed on another
                process.
            Interrupted: a signal or the limit of time ended it, after a checkpoint.
        """
        settings, done = self.parts.settings, self.parts.progress
        self.parts.model.train()
        self.watch.begin()
        if done.hooks_due:
            self._make_up()
        waiting = False  # a checkpoint, for a step that is not skipped
        while done.step < settings.steps and not self.watch.stop:
            self._step()
            if done.step in self.snapshots:
                self._save_averages()
            if done.step % settings.log_every == 0 or done.step == settings.steps:
                self._log()
            self._end_if_asked()
            self._run_hooks(self.watch.due())
            waiting = waiting or done.step % settings.checkpoint_every == 0
            if (waiting and self._is_good()) or done.step == settings.steps or self.watch.stop:
                self._save_step()
                waiting = False
        self.bar.close()
        if self.watch.stop and rank() == 0:
            print(f"stopped early, after {done.step} of {settings.steps} steps", file=sys.stderr)

    def _make_up(self) -> None:
        r"""Runs the hooks that had not run at the step of the checkpoint from which the run was resumed."""
        names, self.parts.progress.hooks_due = self.parts.progress.hooks_due, []
        self._run_hooks(self.watch.due(names))
        self._save_step()

    def _step(self) -> None:
        self.meter.add(*self.step())
        self.profile.step()
        self.bar.update()

    def _is_good(self) -> bool:
        r"""Whether this step was not skipped; waits for it."""
        self.meter.store()
        return self.parts.progress.skipped_in_a_row == 0

    def _end_if_asked(self) -> None:
        r"""Writes a checkpoint and raises Interrupted where the processes have agreed to end.

        The hooks of this step may take long; they run when the run is resumed.
        """
        done, status = self.parts.progress, self.ending.agreed()
        hooks = self.watch.due()
        if not status or (done.step == self.parts.settings.steps and not hooks):
            return
        done.hooks_due = [type(hook).__name__ for hook in hooks]
        self._save_step()
        self.bar.close()
        hours = self.parts.settings.max_hours
        cause = f"trainer.max_hours={hours}" if status == NOT_FINISHED else signal.Signals(status - 128).name
        raise Interrupted(
            status,
            f"{cause} ended the run after step {done.step} of {self.parts.settings.steps}. Resume it with "
            f"trainer.resume=auto hydra.run.dir={self.parts.folder}.",
        )

    def _run_hooks(self, hooks: list[Hook]) -> None:
        if not hooks:
            return
        parts = self.parts
        moment = Moment(
            parts.progress.step, parts.model, parts.folder, self._write, self._picture, self.keeper.save_named
        )
        self.meter.pause()
        self.keeper.check_folder()
        failed = self.watch.run(hooks, moment)
        if failed is not None:  # a picture that cannot be drawn must not cost the steps before it
            parts.progress.hooks_due = failed.due
            try:
                self._save_step()  # and waits: a process that ends makes the launcher end the others
            except Exception as other:
                raise failed.cause from other
            raise failed.cause
        self.meter.resume()

    def _save_averages(self) -> None:
        self.meter.pause()
        self.keeper.save_averages()
        self.meter.resume()

    def _save_step(self) -> None:
        self.meter.pause()
        self.mirror.wait()  # what it reads must not be deleted
        self.meter.store()
        self.keeper.save_step(last=self.watch.stop)
        self.mirror.update()
        self.meter.resume()

    def _log(self) -> None:
        self.keeper.check_folder()
        done = self.parts.progress
        values = self.meter.read(done.step)
        self._check_skipped()
        values["lr"] = self.parts.optimizer.param_groups[0]["lr"]
        values["skipped"] = done.skipped
        values["images"] = done.step * self.parts.settings.batch_size
        if isinstance(train := self.parts.source.train, Tolerant) and train.damaged:
            values["damaged"] = train.damaged  # samples that this process could not read
        values |= self.parts.loss.metrics()
        self.bar.set_postfix(loss=f"{values['loss']:.4f}")
        self._write(values)

    def _check_skipped(self) -> None:
        settings, done = self.parts.settings, self.parts.progress
        if done.skipped_in_a_row >= settings.max_skipped:
            raise self.keeper.diverged(
                f"the loss or its gradient was not finite {done.skipped_in_a_row} times in a row (max_skipped="
                f"{settings.max_skipped}; step {done.step}, learning rate "
                f"{self.parts.optimizer.param_groups[0]['lr']:.3g})."
            )

    def _write(self, values: dict[str, float]) -> None:
        values = {name: value for name, value in values.items() if math.isfinite(value)}  # JSON has no NaN
        for logger in self.parts.loggers if rank() == 0 else ():
            logger.log(self.parts.progress.step, values)

    def _picture(self, name: str, path: Path) -> None:
        for logger in self.parts.loggers if rank() == 0 else ():
            logger.picture(self.parts.progress.step, name, path)
