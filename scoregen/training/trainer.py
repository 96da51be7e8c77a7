r"""Training: batches in, weights, averages, numbers and checkpoints out.

It knows a model, a loss and data, not which process or loss they are. Everything random or scheduled is a function of
(seed, step, place in the global batch), so a run that was killed and resumed computes the same, and one that is spread
over more processes or micro-batches the same up to rounding (with dropout or batch normalisation: the same law).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from scoregen import checkpoint
from scoregen.averages import POWERS
from scoregen.config import Config
from scoregen.data import Source
from scoregen.errors import UserError
from scoregen.losses import Loss
from scoregen.parallel import device, rank, say_once, world_size
from scoregen.training.copies import make_accelerator
from scoregen.training.ema import EMA
from scoregen.training.ending import Ending
from scoregen.training.exponentiated_gradient import ExponentiatedGradient
from scoregen.training.hooks import Hook
from scoregen.training.loggers import Logger
from scoregen.training.loop import Loop
from scoregen.training.parts import Made, Parts, Progress
from scoregen.training.power_averages import PowerAverages, begin_snapshots
from scoregen.training.precision import mixed_precision
from scoregen.training.room import say_room
from scoregen.training.scaling import restore_scale
from scoregen.training.settings import Settings
from scoregen.training.shard_keeper import restore
from scoregen.training.sharding import check_sharding, is_sharded, shard_model
from scoregen.training.speed import compiler_of, matmul_precision, speed_up

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Trainer(Settings):
    r"""Trains by stochastic gradients; its arguments are those of `Settings`."""

    def fit(
        self,
        model: nn.Module,
        loss: Loss,
        source: Source,
        folder: Path,
        config: Config,
        *,
        start: Path | None = None,
        loggers: Sequence[Logger] = (),
        hooks: Sequence[Hook] = (),
        seed: int = 0,
    ) -> EMA:
        r"""Trains from a checkpoint or from the first step to the last.

        Args:
            model: trained in place.
            loss: loss(model, x, label, generator, quantile) -> (B,).
            source: its `train` part is used, with its augmentation.
            folder: run folder.
            config: the resolved configuration, written into every checkpoint.
            start: checkpoint to resume from.
            loggers: used on the first process.
            hooks: called on every process.
            seed: seed of everything random.

        Returns:
            The averaged weights.

        Raises:
            UserError: the training diverged, the run folder is gone, or a hook failed on another process.
            Interrupted: a signal or `max_hours` ended it, after a checkpoint.
        """
        self.check(model, loss)
        parts = Parts(
            settings=self,
            seed=seed,
            model=model,
            loss=loss,
            source=source,
            folder=folder,
            config=config,
            loggers=loggers,
            hooks=hooks,
            **self._made(model, loss, start),
        )
        _begin_powers(parts, start)
        self._run(parts, start)
        return parts.ema

    def _made(self, model: nn.Module, loss: Loss, start: Path | None) -> Made:
        r"""What these settings make of a model and a loss, in the state of the checkpoint `start` if there is one."""
        accelerator = self._place(model, loss)
        optimizer = self.make_optimizer(model, loss)
        rates = [group["lr"] * group.get("rate", 1.0) for group in optimizer.param_groups]
        ema = EMA(model, self.ema_halflife, self.ema_warmup)
        powers = None if self.ema_snapshots is None else PowerAverages(ema)
        progress = Progress()
        if start is not None:
            restore_scale(accelerator, checkpoint.read_state(start))
            progress = restored(start, model, loss, optimizer, ema)
        return Made(
            accelerator=accelerator, optimizer=optimizer, rates=rates, ema=ema, powers=powers, progress=progress
        )

    def _place(self, model: nn.Module, loss: Loss) -> "Accelerator":
        r"""Puts model and loss on the device, compiled or cut into shards if the settings say so."""
        accelerator = make_accelerator(mixed_precision(self.precision), self.ddp)
        speed_up(model, loss, self, accelerator.device)
        loss.begin(model)
        if self.sharding is not None and world_size() > 1:
            shard_model(model, self.sharding, accelerator.device)
        loss.to(accelerator.device)
        return accelerator

    def _run(self, parts: Parts, start: Path | None) -> None:
        r"""Opens loggers, signals, mirror and profile, and runs the loop between them."""
        with ExitStack() as opened:
            opened.enter_context(matmul_precision(self.matmul, parts.accelerator.device))
            ending = opened.enter_context(Ending(self.max_hours, self.timeout))
            for logger in parts.loggers:
                logger.open(parts.folder, parts.config, parts.progress.step)
                opened.callback(logger.close)
            say_room(parts)
            loop = Loop(parts, ending)
            loop.mirror.begin(start)
            opened.enter_context(loop.mirror)
            loop.mirror.update()  # what an earlier part of the run could not
            opened.enter_context(loop.profile)
            loop.run()

    def settled(self, node: Mapping[str, Any]) -> dict[str, Any]:
        r"""The node of the configuration with the precision that was chosen, which a run keeps on other hardware."""
        return {**node, "precision": mixed_precision(self.precision)}

    def check(self, model: nn.Module, loss: Loss) -> None:
        r"""Refuses a model or loss that these settings do not suit, before any work; says what one process leaves out.

        Raises:
            UserError: they do not suit; the message names what.
        """
        if self.sharding is not None:
            check_sharding(model, loss, mixed_precision(self.precision))
            if self.ema_snapshots is not None:
                raise UserError(
                    "trainer.ema_snapshots: must be null for a sharded model, whose averages no process has whole, got "
                    f"{self.ema_snapshots}. Leave it out, or give trainer.shard=false."
                )
        if world_size() == 1 and self.sharding is not None:
            say_once("trainer.shard: there is one process, so that the model is not cut.")
        if world_size() == 1 and self.ddp is not None:
            say_once("trainer.ddp: there is one process, so that the model has no copies.")
        self._check_batch(loss)
        _check_least(model, loss)
        compiler_of(loss, self, device())

    def _check_batch(self, loss: Loss) -> None:
        r"""Refuses parts of a batch that are too small for a loss."""
        each = self.batch_size // (world_size() * self.micro_batches)
        if each < loss.least_batch:
            raise UserError(
                f"trainer.batch_size: {type(loss).__name__} needs at least {loss.least_batch} samples in each process "
                f"and micro-batch, got {each} of trainer.batch_size={self.batch_size}. Give a larger one, or a smaller "
                "trainer.accumulate."
            )

    def make_optimizer(self, model: nn.Module, loss: Loss | None = None) -> torch.optim.Optimizer:
        r"""The optimizer of a model's trainable parameters, in a group a layer where rates decay with the depth.

        Parameters of the loss follow in a group of their own, without weight decay.

        Raises:
            ValueError: a layer_decay for a model that does not name its layers, or an optimizer under which the
                parameters of the loss would stay 0.
        """
        make, own = self.optimizer or _adamw, [] if loss is None else loss.trained()
        beside: list[dict[str, Any]] = [{"params": own, "weight_decay": 0.0}] if own else []
        if self.layer_decay is None:
            parameters = [p for p in model.parameters() if p.requires_grad]
            return _multiplicative_refused(make([{"params": parameters}, *beside]) if own else make(parameters), own)
        layers: Callable[[], Sequence[Iterable[nn.Parameter]]] | None = getattr(model, "layers", None)
        if layers is None:
            raise ValueError(
                f"layer_decay must be null for a {type(model).__name__}, which does not name its layers, got "
                f"layer_decay={self.layer_decay}."
            )
        groups = []
        for depth, layer in enumerate(reversed(layers())):  # the last layer first, whose rate is logged
            parameters = [p for p in layer if p.requires_grad]
            if parameters:
                groups.append({"params": parameters, "rate": self.layer_decay**depth})
        return _multiplicative_refused(make([*groups, *beside]), own)


def _check_least(model: Any, loss: Loss) -> None:
    r"""Refuses a denoiser that would claim less noise than the loss trains."""
    own: float | None = getattr(model, "least_s", None)
    if own is None or not hasattr(model, "sde"):
        return
    if own < (least := loss.least_s(model.sde)):
        raise UserError(
            f"model.least_s: {type(loss).__name__} trains noise ratios from {least:.6g} on, got {own:g}. Give the "
            "denoiser least_s=loss.least_s(sde)."
        )


def _begin_powers(parts: Parts, start: Path | None) -> None:
    r"""The averages of further lengths continue from the checkpoint; their snapshots of later steps are dropped."""
    if parts.powers is None:
        return
    if start is not None:
        parts.powers.load(start / POWERS)
    if rank() == 0:
        begin_snapshots(parts.folder, parts.progress.step)


def _multiplicative_refused(optimizer: torch.optim.Optimizer, own: list[nn.Parameter]) -> torch.optim.Optimizer:
    r"""The optimizer, unless its steps are factors and parameters of the loss start at 0."""
    if own and isinstance(optimizer, ExponentiatedGradient):
        raise UserError(
            "loss.uncertainty: must be false with trainer.optimizer ExponentiatedGradient, got true. Its steps are "
            "factors, so that u(s) would stay 0. Choose another optimizer."
        )
    return optimizer


def _adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


def restored(start: Path, model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, ema: EMA) -> Progress:
    r"""Reads a checkpoint into the objects of a training; how far it had come."""
    checkpoint.verify(start)
    state = checkpoint.read_state(start)
    if is_sharded(model):
        restore(start, model, loss, optimizer, ema)
    else:
        checkpoint.load_weights(model, start / "model.safetensors", loss)
        ema.load(checkpoint.read_tensors(start / "ema.safetensors"))
        checkpoint.load_optimizer(optimizer, start, state)
    window, due = state.get("window", (0.0, 0.0, 0)), state.get("hooks_due", [])
    return Progress(state["step"], state["skipped"], state["skipped_in_a_row"], window, due)
