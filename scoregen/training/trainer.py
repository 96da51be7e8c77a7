r"""The training loop: batches in, weights, averages, numbers and checkpoints out.

It knows a model, a loss and data, not which process or loss they are. Everything random or scheduled is a function of
(seed, step, place in the global batch), so a run that was killed and resumed computes the same, and one that is spread
over more processes or micro-batches the same up to rounding (with dropout or batch normalisation: the same law).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scoregen import checkpoint
from scoregen.data import Batches, Source
from scoregen.parallel import rank, world_size
from scoregen.training.ema import EMA, check_average
from scoregen.training.hooks import Hook
from scoregen.training.loggers import Logger
from scoregen.training.loop import Loop, Progress
from scoregen.training.precision import mixed_precision
from scoregen.training.schedule import Constant, Schedule


class Trainer:
    r"""Trains by stochastic gradients.

    Args:
        steps: optimizer steps in all.
        batch_size: global batch size, over all processes and micro-batches.
        accumulate: micro-batches a step.
        optimizer: makes the optimizer from the parameters; AdamW at 1e-3 unless given.
        layer_decay: factor in (0, 1] of the learning rate from each layer of the model to the one below it; None: 1.
        schedule: factor of its learning rate; constant unless given.
        ema_halflife: of the averaged weights, in images. ema_warmup: see `EMA`.
        clip: largest gradient norm; None for no clipping.
        precision: "auto" (bf16 autocast where the hardware computes in it), "bf16" or "no".
        log_every, checkpoint_every: steps.
        keep_last: checkpoints kept. keep_every: checkpoints at multiples of so many steps are kept for good.
        max_skipped: steps with a non-finite gradient are skipped; so many in a row end the run.
        workers: processes that read data.
        resume: None, "auto" or a checkpoint (decided by `prepare`).
        seed: of everything random.

    Raises:
        ValueError: values out of range.
    """

    def __init__(
        self,
        steps: int,
        batch_size: int = 128,
        accumulate: int = 1,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        schedule: Schedule | None = None,
        ema_halflife: float = 500_000,
        ema_warmup: float = 0.05,
        clip: float | None = 1.0,
        layer_decay: float | None = None,
        precision: str = "auto",
        log_every: int = 50,
        checkpoint_every: int = 1000,
        keep_last: int = 2,
        keep_every: int | None = None,
        max_skipped: int = 10,
        workers: int = 0,
        resume: str | None = None,
        seed: int = 0,
    ) -> None:
        _check_positive(
            steps=steps,
            batch_size=batch_size,
            accumulate=accumulate,
            log_every=log_every,
            checkpoint_every=checkpoint_every,
            keep_last=keep_last,
            max_skipped=max_skipped,
        )
        if keep_every is not None and keep_every < 1:
            raise ValueError(f"keep_every must be >= 1 or null, got keep_every={keep_every}.")
        if workers < 0:
            raise ValueError(f"workers must be >= 0, got workers={workers}.")
        if clip is not None and not clip > 0:
            raise ValueError(f"clip must be > 0 or null, got clip={clip}.")
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise ValueError(
                f"layer_decay must satisfy 0 < layer_decay <= 1 or be null, got layer_decay={layer_decay}."
            )
        if optimizer is not None and not callable(optimizer):
            raise ValueError(f"optimizer must make an optimizer from parameters, got optimizer={optimizer!r}.")
        check_average(ema_halflife, ema_warmup, "ema_")
        self.steps, self.batch_size, self.accumulate = steps, batch_size, accumulate
        self.optimizer = optimizer or (lambda params: torch.optim.AdamW(params, lr=1e-3))
        self.schedule = Constant() if schedule is None else schedule
        self.ema_halflife, self.ema_warmup, self.clip = ema_halflife, ema_warmup, clip
        self.layer_decay, self.precision = layer_decay, mixed_precision(precision)
        self.log_every, self.checkpoint_every = log_every, checkpoint_every
        self.keep_last, self.keep_every = keep_last, keep_every
        self.max_skipped, self.workers, self.resume, self.seed = max_skipped, workers, resume, seed
        Batches(1, batch_size, accumulate, rank(), world_size(), seed, 0, steps)  # refuses what does not divide

    def fit(
        self,
        model: nn.Module,
        loss: nn.Module,
        source: Source,
        folder: Path,
        config: dict[str, Any],
        start: Path | None = None,
        loggers: Sequence[Logger] = (),
        hooks: Sequence[Hook] = (),
    ) -> EMA:
        r"""Trains from a checkpoint or from the first step to the last.

        Args:
            model: trained in place. loss: loss(model, x, label, generator, quantile) -> (B,).
            source: its `train` part is used, with its augmentation.
            folder: run folder. config: the resolved configuration, written into every checkpoint.
            start: checkpoint to go on from. loggers, hooks: on the first process; on all.

        Returns:
            The averaged weights.

        Raises:
            UserError: the loss was not finite `max_skipped` times in a row.
        """
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()  # else a second run in this process could not have another precision
        accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision=self.precision)
        model.to(accelerator.device)
        loss.begin(model)
        loss.to(accelerator.device)
        optimizer = self.make_optimizer(model)
        base_rates = [group["lr"] * group.get("rate", 1.0) for group in optimizer.param_groups]
        ema = EMA(model, self.ema_halflife, self.ema_warmup)
        done = self._restore(start, model, loss, optimizer, ema)
        loop = Loop(
            self, accelerator, model, loss, optimizer, base_rates, ema, source, folder, config, done, loggers, hooks
        )
        with ExitStack() as opened:
            for logger in loggers:
                logger.open(folder, config, done.step)
                opened.callback(logger.close)
            loop.run()
        return ema

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        r"""The optimizer of a model's trainable parameters, in a group a layer where rates decay with the depth.

        Raises:
            ValueError: a layer_decay for a model that does not name its layers.
        """
        if self.layer_decay is None:
            return self.optimizer([p for p in model.parameters() if p.requires_grad])
        if not hasattr(model, "layers"):
            raise ValueError(f"layer_decay must be null for a {type(model).__name__}, got {self.layer_decay}")
        groups = []
        for depth, layer in enumerate(reversed(model.layers())):  # the last layer first, whose rate is logged
            parameters = [p for p in layer if p.requires_grad]
            if parameters:
                groups.append({"params": parameters, "rate": self.layer_decay**depth})
        return self.optimizer(groups)

    def _restore(self, start, model, loss, optimizer, ema) -> Progress:
        if start is None:
            return Progress()
        state = checkpoint.read_state(start)
        checkpoint.load_weights(model, start / "model.safetensors", loss)
        ema.load(checkpoint.read_tensors(start / "ema.safetensors"))
        checkpoint.load_optimizer(optimizer, start, state)
        window, due = state.get("window", (0.0, 0.0, 0)), state.get("hooks_due", [])
        return Progress(state["step"], state["skipped"], state["skipped_in_a_row"], window, due)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {name}={value}.")
