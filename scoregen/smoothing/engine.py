r"""Counting a classifier's answers over noise, for several inputs in one batch.

The noise of an input is cut into chunks of 128 draws. A chunk's generator is keyed by (seed, stream, index of the
input, first draw), so the counts are the same whatever the batch size, the order of the inputs or the number of
processes (up to the network's own rounding, which may depend on the batch). Chunks of different inputs fill one
batch, counts stay on the device, and one transfer ends a call.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from scoregen.rng import Stream, generator
from scoregen.smoothing.classifiers import Classify
from scoregen.smoothing.noise import AbstractNoise

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 128
_LARGE = 1e30  # replaces infinity in differences


@dataclass(frozen=True)
class Request:
    r"""Draws `start` to `start + draws` of an input's stream of noise."""

    x: Tensor
    index: int
    stream: Stream
    start: int
    draws: int

    def chunks(self) -> Iterator[tuple[int, int]]:
        r"""First draw and size of each chunk."""
        for first in range(self.start, self.start + self.draws, CHUNK):
            yield first, min(CHUNK, self.start + self.draws - first)


def refuse_training(classifier: Classify) -> None:
    r"""Refuses a module in training mode, whose dropout and batch statistics change its answers.

    Raises:
        ValueError: the module, or one inside it, is in training mode.
    """
    if not isinstance(classifier, nn.Module):
        return
    training = next((name or "classifier" for name, module in classifier.named_modules() if module.training), None)
    if training is not None:
        raise ValueError(
            f"classifier must be in evaluation mode, got {training!r} in training mode. Call classifier.eval()."
        )


def placed(classifier: Classify, x: Tensor) -> tuple[torch.device, torch.dtype]:
    r"""Device and type of a classifier's input: those of its weights, or of x if it has none."""
    tensors: Iterable[Tensor] = ()
    if isinstance(classifier, nn.Module):
        tensors = itertools.chain(classifier.parameters(), classifier.buffers())
    known = next((t for t in tensors if t.is_floating_point()), x)
    return known.device, known.dtype


def rounded(noisy: Tensor, dtype: torch.dtype) -> Tensor:
    r"""Noisy inputs in a classifier's type, by way of float32: a float64 sum hides x only where bits are cut off."""
    return noisy.float().to(dtype)


class Engine:
    r"""Counts of a classifier's answers under noise.

    Args:
        classifier: (B, *S) -> logits (B, num_classes); its argmax is the answer.
        noise: of the smoothing.
        num_classes: number of logits.
        batch_size: draws in a forward pass; on a CPU as many as fit its cache are fastest.
        strict: float64 noise.
        precision: None, or torch.bfloat16 / torch.float16 for autocast in the forward pass; that rounded classifier is
            then certified.
    """

    def __init__(
        self,
        classifier: Classify,
        noise: AbstractNoise,
        num_classes: int,
        *,
        batch_size: int,
        strict: bool,
        precision: torch.dtype | None,
    ) -> None:
        self.classifier, self.noise, self.num_classes = classifier, noise, num_classes
        self.batch_size, self.strict, self.precision = batch_size, strict, precision

    @torch.no_grad()
    def count(self, requests: Sequence[Request], seed: int) -> np.ndarray:
        r"""How often each class was the answer.

        Returns:
            (requests, num_classes), int64.

        Raises:
            ValueError: logits of another shape, or that are not numbers.
        """
        device, dtype = placed(self.classifier, requests[0].x)
        size = len(requests) * self.num_classes
        counts = torch.zeros(size + len(requests), dtype=torch.int64, device=device)  # the last ones: no answer
        with self._autocast(device):
            for noisy, rows in repack(self._drawn(requests, seed, device, dtype), self.batch_size):
                place, valid = self._answers(noisy)
                place = torch.where(valid, rows * self.num_classes + place, size + rows)
                counts.index_add_(0, place, torch.ones_like(place))
        found = counts.cpu().numpy()
        for request, lost in zip(requests, found[size:], strict=True):
            if lost:
                raise ValueError(
                    f"classifier must return finite numbers, got NaN or infinity as the largest logit of {lost} noisy "
                    f"copies of input {request.index}. If it overflowed in half precision, set precision=null."
                )
        return found[:size].reshape(len(requests), self.num_classes)

    @torch.no_grad()
    def require_function(self, x: Tensor) -> None:
        r"""Checks that the classifier's answer depends on nothing but its input.

        Noisy copies of x and of a darker x are classified together, and each one in a batch of its own (with itself,
        since an exported network may not take a batch of one). This finds a batch norm that was exported in training
        mode, and a sampler whose steps depend on the batch. One copy may differ, since rounding can turn a near tie.

        Args:
            x: one input (*S).

        Raises:
            ValueError: the answer depends on chance, or on the rest of the batch.
        """
        device, dtype = placed(self.classifier, x)
        keyed = generator(0, Stream.PROBE, device=_source(device))
        noisy = torch.cat([self.noise.sample(scale * x, 4, keyed, self.strict) for scale in (1.0, 0.25)])
        noisy = rounded(noisy, dtype).to(device)
        with self._autocast(device):
            together, again = (self._logits(noisy).double() for _ in range(2))
            alone = torch.stack([self._logits(copy.expand(2, *copy.shape))[0] for copy in noisy]).double()
        half = self.precision is not None or torch.finfo(dtype).bits < 32
        if differ(together, again, half).sum() > 1:
            raise ValueError(
                "classifier must be deterministic, but the same input gave different logits. Disable its dropout or "
                "internal noise."
            )
        if differ(together, alone, half).sum() > 1:
            raise ValueError(
                "classifier must treat each input by itself, but its logits for an input changed with the other inputs "
                "in the batch, so that its counts prove nothing. Call model.eval() before exporting it (batch norm)."
            )

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, self.precision) if self.precision is not None else nullcontext()

    def _logits(self, noisy: Tensor) -> Tensor:
        logits = self.classifier(noisy)
        if logits.shape != (len(noisy), self.num_classes):
            raise ValueError(
                f"classifier must return logits of shape (batch, num_classes) = {(len(noisy), self.num_classes)}, "
                f"got {tuple(logits.shape)}. Set num_classes."
            )
        return logits

    def _answers(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        r"""The class of each noisy input, and whether there is one."""
        largest, place = self._logits(noisy).max(1)
        return place, largest.isfinite()  # a NaN is the largest of its row

    def _drawn(
        self, requests: Sequence[Request], seed: int, device: torch.device, dtype: torch.dtype
    ) -> Iterator[tuple[Tensor, Tensor]]:
        r"""Noisy inputs and the row of the request that each belongs to; on a CPU all threads draw, ahead of use."""
        source = _source(device)
        threads = torch.get_num_threads() if source.type == "cpu" else 1
        chunks = [(row, *chunk) for row, request in enumerate(requests) for chunk in request.chunks()]

        def draw(chunk: tuple[int, int, int]) -> Tensor:
            row, first, size = chunk
            request = requests[row]
            keyed = generator(seed, request.stream, request.index, first, device=source)
            return rounded(self.noise.sample(request.x, size, keyed, self.strict), dtype)

        size = max(threads, -(-self.batch_size // CHUNK))
        groups = [chunks[i : i + size] for i in range(0, len(chunks), size)]
        with ThreadPoolExecutor(threads) as pool:
            drawn = ahead(pool, draw, groups) if source.type == "cpu" else ([draw(c) for c in g] for g in groups)
            for group, noisy in zip(groups, drawn, strict=True):
                rows = torch.tensor([row for row, _, size in group for _ in range(size)])
                yield torch.cat(noisy).to(device), rows.to(device)


def _source(device: torch.device) -> torch.device:
    r"""Where noise is drawn: there is no float64 on MPS."""
    return torch.device("cpu") if device.type == "mps" else device


def differ(logits: Tensor, others: Tensor, half: bool) -> Tensor:
    r"""Which rows of two logits (B, K) differ by more than rounding, (B,).

    Only the classes that could win are compared, and only with each other. Next to a masked class, or under an offset
    of all classes, any difference would look small.
    """
    top = torch.cat([x.topk(2).indices for x in (logits, others)], 1)
    logits, others = (x.gather(1, top).clamp(-_LARGE, _LARGE) for x in (logits, others))
    rounding = (4 * torch.finfo(torch.bfloat16).eps if half else 100 * torch.finfo(torch.float32).eps) * logits.abs()
    logits, others = (x - x.mean(1, keepdim=True) for x in (logits, others))
    allowed = (0.05 if half else 0.01) * logits.abs().amax(1) + rounding.amax(1)
    return ~((logits - others).abs().amax(1) <= allowed)  # NaN differs from everything


def ahead(
    pool: Executor, function: Callable[[Item], Result], groups: Sequence[Sequence[Item]]
) -> Iterator[list[Result]]:
    r"""[function(item) for each item] of each group, while the pool works on the next group."""
    waiting: list[Future[Result]] = []
    for group in groups:
        started = [pool.submit(function, item) for item in group]
        if waiting:
            yield [future.result() for future in waiting]
        waiting = started
    if waiting:
        yield [future.result() for future in waiting]


def repack(pieces: Iterator[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    r"""The same rows in batches of one size; the last may be smaller."""
    waiting: tuple[Tensor, Tensor] | None = None
    for piece in pieces:
        noisy, rows = piece if waiting is None else (torch.cat(pair) for pair in zip(waiting, piece, strict=True))
        while len(noisy) >= size:
            yield noisy[:size], rows[:size]
            noisy, rows = noisy[size:], rows[size:]
        waiting = (noisy, rows) if len(noisy) else None
    if waiting is not None:
        yield waiting
