r"""The loop over the steps of a run.

Everything random or scheduled is a function of (seed, step, place in the global batch), so resuming changes
nothing, and the number of blocks (micro-batches times processes) into which a batch is cut changes nothing but
rounding. What a network does with a block as a whole is of that block: dropout masks, batch statistics.
"""

import math
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoregen import checkpoint
from scoregen.data import Batches
from scoregen.errors import UserError
from scoregen.parallel import Failure, PeerFailed, gather, rank, share, world_size
from scoregen.progress import progress
from scoregen.rng import derive_seed, generator, generators
from scoregen.training.hooks import Hook, Moment
from scoregen.training.meter import Meter

_NOISE, _LEVELS, _AUGMENT, _GLOBAL = 1, 2, 3, 4  # streams of random numbers


class Objective(nn.Module):
    r"""Model and loss as one module, so that distributed training sees all calls of the model in one forward pass."""

    def __init__(self, model: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(
        self, x: Tensor, label: Tensor | None, generator: list[torch.Generator], quantile: list[float]
    ) -> Tensor:
        # distributed training takes tensors to the device, numbers stay; noise levels are float64 on the CPU
        return self.loss(self.model, x, label, generator, torch.tensor(quantile, dtype=torch.float64))


@dataclass
class Progress:
    r"""What is counted over a run, beside the step."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    window: tuple[float, float, int] = (0.0, 0.0, 0)  # of the meter, between two log steps
    hooks_due: list[str] = field(default_factory=list)  # classes of those of this step, after one failed


class Loop:
    r"""One call of `fit`: the objects of a run and the loop over its steps."""

    def __init__(
        self,
        trainer,
        accelerator,
        model,
        loss,
        optimizer,
        base_rates,
        ema,
        source,
        folder,
        config,
        done,
        loggers,
        hooks,
    ) -> None:
        self.trainer, self.accelerator, self.model, self.loss = trainer, accelerator, model, loss
        self.optimizer, self.ema, self.source = optimizer, ema, source
        self.folder, self.config, self.done = folder, config, done
        self.loggers, self.hooks = loggers, hooks
        self.base_rates = base_rates
        self.objective = accelerator.prepare_model(Objective(model, loss))
        self.batches = Batches(
            len(source.train),
            trainer.batch_size,
            trainer.accumulate,
            rank(),
            world_size(),
            trainer.seed,
            done.step,
            trainer.steps,
        )

    def run(self) -> None:
        trainer, done = self.trainer, self.done
        bar = progress(total=trainer.steps, initial=done.step, description="training", unit="step")
        meter = Meter(trainer.steps, trainer.batch_size, self.accelerator.device, done.window)
        batches = self._batches()
        self.model.train()
        for hook in self.hooks:
            hook.begin(self.folder, done.step)
        stop = any(hook.stop for hook in self.hooks)
        if done.hooks_due:
            due, done.hooks_due = done.hooks_due, []
            stop = self._run_hooks(meter, due)
            self._write_step(meter)
            self.accelerator.wait_for_everyone()
        while done.step < trainer.steps and not stop:
            value, norm = self._step(batches)
            done.step += 1
            meter.add(value, norm, skipped=done.skipped_in_a_row > 0)
            bar.update()
            if done.step % trainer.log_every == 0 or done.step == trainer.steps:
                self._log(meter, bar)
            stop = self._run_hooks(meter)
            if done.step % trainer.checkpoint_every == 0 or done.step == trainer.steps or stop:
                meter.pause()
                self._write_step(meter)
                self.accelerator.wait_for_everyone()
                meter.resume()
        bar.close()
        if stop and rank() == 0:
            print(f"stopped early, after {done.step} of {trainer.steps} steps", file=sys.stderr)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        loader = torch.utils.data.DataLoader(
            self.source.train, batch_sampler=self.batches, collate_fn=_as_is, num_workers=self.trainer.workers
        )
        return iter(loader)

    def _step(self, batches: Iterator) -> tuple[Tensor, Tensor]:
        trainer, done = self.trainer, self.done
        self.loss.at(done.step, trainer.steps)
        factor = trainer.schedule(done.step, trainer.steps)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        value = torch.zeros((), device=self.accelerator.device)
        for micro in range(trainer.accumulate):
            last = micro == trainer.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.objective):
                part = self._micro_batch(next(batches), micro)
                part.backward()  # accelerator.backward would divide by what the environment says
            value += part.detach()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(parameters, trainer.clip if trainer.clip is not None else math.inf)
        if torch.isfinite(norm):  # one wait for the device a step: an optimizer must not see a bad gradient
            self.optimizer.step()
            self.ema.update(trainer.batch_size, (done.step + 1) * trainer.batch_size)
            done.skipped_in_a_row = 0
        else:
            self._skip(value)
        self.optimizer.zero_grad(set_to_none=True)
        return value, norm

    def _micro_batch(self, batch: tuple[Tensor, Tensor | None], micro: int) -> Tensor:
        trainer, step = self.trainer, self.done.step
        places = self.batches.positions(micro)
        x, label = batch
        if self.source.augmentation is not None:
            x = self.source.augmentation(x, generators(trainer.seed, _AUGMENT, step, places))
        device = self.accelerator.device
        x, label = x.to(device, non_blocking=True), None if label is None else label.to(device, non_blocking=True)
        offset = torch.rand((), generator=generator(trainer.seed, _LEVELS, step), dtype=torch.float64)
        quantile = (torch.tensor(list(places), dtype=torch.float64) + offset) / trainer.batch_size
        torch.manual_seed(derive_seed(trainer.seed, _GLOBAL, step, 0, micro * world_size() + rank()))  # dropout
        losses = self.objective(x, label, generators(trainer.seed, _NOISE, step, places), quantile.tolist())
        return losses.sum() * (world_size() / trainer.batch_size)

    def _skip(self, value: Tensor) -> None:
        done = self.done
        done.skipped += 1
        done.skipped_in_a_row += 1
        if done.skipped_in_a_row >= self.trainer.max_skipped:
            raise UserError(
                f"the loss or its gradient was not finite {done.skipped_in_a_row} times in a row (max_skipped="
                f"{self.trainer.max_skipped}; step {done.step + 1}, loss {value.item():.4g}, learning rate "
                f"{self.optimizer.param_groups[0]['lr']:.3g}). Look for bad values in the data, or start a new run "
                f"from good weights (init=CHECKPOINT) with a lower trainer.optimizer.lr or trainer.precision=no; "
                f"{self._kept()}."
            )

    def _kept(self) -> str:
        last = self.folder / "checkpoints" / "last"
        return (
            f"the last checkpoint, '{last.resolve()}', is intact" if last.exists() else "no checkpoint was written yet"
        )

    def _log(self, meter: Meter, bar) -> None:
        values = meter.read(self.done.step)
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        values["skipped"] = self.done.skipped
        values["images"] = self.done.step * self.trainer.batch_size
        values |= self.loss.metrics()
        bar.set_postfix(loss=f"{values['loss']:.4f}")
        self._write(values)

    def _write(self, values: dict[str, float]) -> None:
        values = {name: value for name, value in values.items() if math.isfinite(value)}  # JSON has no NaN
        if rank() == 0:
            for logger in self.loggers:
                logger.log(self.done.step, values)

    def _run_hooks(self, meter: Meter, names: list[str] | None = None) -> bool:
        r"""Runs the hooks of this step (of these classes only); whether the training should end."""
        step = self.done.step

        def due(hook: Hook) -> bool:
            # the step after which a hook ends the training is the last one for those that follow
            return step == self.trainer.steps or step % hook.every == 0 or any(h.stop for h in self.hooks)

        waiting = [hook for hook in self.hooks if names is None or type(hook).__name__ in names]
        if not any(due(hook) for hook in waiting):
            return any(hook.stop for hook in self.hooks)
        meter.pause()
        share(self.model.buffers(), self.ema.buffers())  # running statistics are each process's own until here
        self.model.eval()
        self.ema.swap()
        moment = Moment(step, self.model, self.folder, self._write, self._picture, self._save_named)
        error = None
        try:
            while waiting and error is None:
                error = _attempt(waiting[0], moment) if due(waiting[0]) else None
                waiting = waiting if error else waiting[1:]
        finally:
            self.ema.swap()
            self.model.train()
        if error is not None:  # a picture that cannot be drawn must not cost the steps before it
            self.done.hooks_due = [type(hook).__name__ for hook in waiting]
            try:
                self._write_step(meter)
                self.accelerator.wait_for_everyone()  # a process that ends makes the launcher end the others
            except Exception as other:
                raise error from other
            raise error
        meter.resume()
        return any(hook.stop for hook in self.hooks)

    def _picture(self, name: str, path: Path) -> None:
        for logger in self.loggers if rank() == 0 else ():
            logger.picture(self.done.step, name, path)

    def _save_named(self, name: str) -> None:
        self.ema.swap()  # hooks run on the averages; a checkpoint holds both in their places
        try:
            self._write_checkpoint(self.folder / "checkpoints" / name)
        finally:
            self.ema.swap()

    def _write_step(self, meter: Meter) -> None:
        self.done.window = meter.window()
        folder = self.folder / "checkpoints" / f"step_{self.done.step:08d}"
        self._write_checkpoint(folder)
        if rank() == 0:
            checkpoint.point_last(folder)
            self._prune(folder.parent)

    def _write_checkpoint(self, folder: Path) -> None:
        if rank() == 0:
            state = {"kind": type(self.model).__name__, **vars(self.done)}
            checkpoint.save(folder, self.model, self.ema.weights, self.optimizer, self.config, state, self.loss)

    def _prune(self, folder: Path) -> None:
        # by age: a run that went on from an earlier step must not lose what it wrote to what it left behind
        own = [path for path in folder.glob("step_*") if path.name.removeprefix("step_").isdigit()]
        steps = sorted(own, key=lambda path: (path.stat().st_mtime_ns, path.name))
        for old in steps[: -self.trainer.keep_last]:
            if not self.trainer.keep_every or int(old.name.removeprefix("step_")) % self.trainer.keep_every:
                shutil.rmtree(old)


def _attempt(hook: Hook, moment: Moment) -> Exception | None:
    r"""Calls a hook; what went wrong on this process or another one, so that all of them stop together.

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


def _as_is(batch: Any) -> Any:
    return batch
