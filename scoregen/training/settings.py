r"""How a training runs: steps, batches, rates, averages, and what is kept."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch

from scoregen.checks import at_least, inside, one_of, positive, refuse, whole
from scoregen.data import Batches
from scoregen.parallel import rank, world_size
from scoregen.remote import check_url
from scoregen.training.copies import check_copies
from scoregen.training.launcher import (
    Launched,
    Sharding,
    agreed,
    launched_accumulate,
    launched_shard,
    refuse_unsupported,
)
from scoregen.training.precision import mixed_precision
from scoregen.training.schedule import Schedule

MATMUL = ("highest", "high", "medium")


@dataclass(frozen=True)
class Settings:
    r"""Settings of a training.

    Args:
        steps: optimizer steps in all.
        batch_size: global batch size, over all processes and micro-batches.
        accumulate: micro-batches a step; None: those of the launcher, or 1.
        optimizer: makes the optimizer from the parameters; None: AdamW with learning rate 1e-3.
        schedule: factor of its learning rate; None: constant.
        ema_halflife: half-life of the averaged weights, in images.
        ema_warmup: see `EMA`.
        ema_snapshots: evenly spaced snapshots of two further averages, from which `scoregen.load(run, ema=0.08)` makes
            one of any length after the training; None: none.
        clip: largest gradient norm; None: no clipping.
        layer_decay: factor in (0, 1] of the learning rate from each layer of the model to the one below it; None: 1.
        precision: of autocast: "auto" (bf16 where the hardware computes in it), "bf16", "fp16" (with scaled gradients)
            or "no"; None: that of the launcher, or "auto".
        compile: whether torch compiles the network (not the loss around it); None: as the launcher says, else on
            accelerators that Triton knows, for losses without second derivatives.
        recompute: whether blocks of the network are computed again in the backward pass, for less memory and a third
            more time; None: as the launcher says, or not.
        channels_last: whether networks that convolve have their channels last in memory; None: on accelerators.
        matmul: precision of products of float32 matrices on CUDA: "highest", "high" (TF32) or "medium".
        shard: whether parameters, averages and optimizer are cut over the processes (FSDP2); None: as the launcher
            says, or not.
        ddp: options of the copies of the model, as Accelerate's `DistributedDataParallelKwargs`; None: its defaults.
        timeout: minutes that a process waits for the others, in training, before it fails.
        log_every: steps between two lines of the log.
        checkpoint_every: steps between two checkpoints.
        keep_last: number of checkpoints kept.
        keep_every: checkpoints at multiples of this step are never deleted; None: none.
        max_skipped: steps with a non-finite gradient are skipped. At a log step the run ends if the last ones, at least
            this many, were all skipped.
        max_hours: hours after which the run writes a checkpoint and ends with exit status 75, "not finished"; choose
            it below the limit of the queue by the time of a step, the hooks and a checkpoint. None: no limit.
        workers: processes that read data; None: none for data in memory, else one a core less one, up to 8.
        profile: steps of which a trace is written into the run folder; None: none.
        mirror: URL, s3://BUCKET/RUN, where the checkpoints are copied to; None: they are local alone.
        resume: None, "auto" or a checkpoint (decided by `prepare`).

    Raises:
        ValueError: values out of range.
    """

    steps: int
    batch_size: int = 128
    _: KW_ONLY
    accumulate: int | None = None
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    schedule: Schedule | None = None
    ema_halflife: float = 500_000
    ema_warmup: float = 0.05
    ema_snapshots: int | None = None
    clip: float | None = 1.0
    layer_decay: float | None = None
    precision: str | None = None
    compile: bool | None = None
    recompute: bool | None = None
    channels_last: bool | None = None
    matmul: str = "high"
    shard: bool | None = None
    ddp: Mapping[str, bool | int | str] | None = None
    timeout: float = 30.0
    log_every: int = 50
    checkpoint_every: int = 1000
    keep_last: int = 2
    keep_every: int | None = None
    max_skipped: int = 10
    max_hours: float | None = None
    workers: int | None = None
    profile: int | None = None
    mirror: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        refuse_unsupported()
        at_least(1, steps=self.steps, batch_size=self.batch_size, accumulate=self.micro_batches)
        at_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        at_least(1, keep_last=self.keep_last, max_skipped=self.max_skipped)
        mixed_precision(self.precision)
        one_of(MATMUL, matmul=self.matmul)
        positive(timeout=self.timeout)
        check_copies(self.ddp, self.sharding)
        at_least(0, workers=self.workers or 0, ema_halflife=self.ema_halflife, ema_warmup=self.ema_warmup)
        if self.ema_snapshots is not None:
            whole(2, ema_snapshots=self.ema_snapshots)
            if self.ema_snapshots > self.steps:
                refuse("ema_snapshots", f"be at most the steps, {self.steps}", self.ema_snapshots)
        if self.profile is not None:
            at_least(1, profile=self.profile)
        if self.mirror is not None:
            check_url(self.mirror, "trainer.mirror")
        if self.keep_every is not None:
            at_least(1, keep_every=self.keep_every)
        if self.max_hours is not None:
            positive(max_hours=self.max_hours)
        if self.clip is not None:
            positive(clip=self.clip)
        if self.layer_decay is not None:
            inside(0, 1, "(]", layer_decay=self.layer_decay)
        if self.optimizer is not None and not callable(self.optimizer):
            raise ValueError(f"optimizer must make an optimizer from parameters, got optimizer={self.optimizer!r}.")
        self.batches(1, 0, 0)  # refuses what does not divide

    @cached_property
    def micro_batches(self) -> int:
        r"""Micro-batches a step, as the configuration and the launcher agree."""
        return agreed("accumulate", self.accumulate, launched_accumulate()) or 1

    @cached_property
    def sharding(self) -> Sharding | None:
        r"""How the model is cut over the processes, as the configuration and the launcher agree; None: it is not."""
        launched = launched_shard()
        asked = None if launched is None else Launched(True, launched.source)
        if not agreed("shard", self.shard, asked):
            return None
        return Sharding() if launched is None else launched.value

    def batches(self, size: int, seed: int, start: int) -> Batches:
        r"""This process's batches of a data set, from a step on."""
        return Batches(
            size=size,
            batch=self.batch_size,
            accumulate=self.micro_batches,
            rank=rank(),
            world=world_size(),
            seed=seed,
            start=start,
            stop=self.steps,
        )
