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
from scoregen.smoothing.logits import logits_of
from scoregen.smoothing.noise import AbstractNoise

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 128
NOT_FINITE = "classifier must return finite numbers, got NaN or infinity as the largest logit of"
OVERFLOW = "If it overflowed in half precision, set precision=no."


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

    def like(self, other: "Engine") -> bool:
        r"""Whether another engine counts the answers of the same classifier in the same way."""
        mine, others = ({**vars(engine), "noise": repr(engine.noise)} for engine in (self, other))
        return all(mine[key] is value or mine[key] == value for key, value in others.items())

    @torch.no_grad()
    def count(self, requests: Sequence[Request], seed: int) -> tuple[np.ndarray, Tensor]:
        r"""How often each class was the answer.

        Returns:
            (requests, num_classes), int64; and the class of each draw (draws,), in the order of the requests.

        Raises:
            ValueError: logits of another shape, or that are not numbers.
        """
        device, dtype = placed(self.classifier, requests[0].x)
        size = len(requests) * self.num_classes
        counts = torch.zeros(size + len(requests), dtype=torch.int64, device=device)  # the last ones: no answer
        answers = []
        with self._autocast(device):
            for noisy, rows in repack(self._drawn(requests, seed, device, dtype), self.batch_size):
                place, valid = self._answers(noisy)
                answers.append(place)
                place = torch.where(valid, rows * self.num_classes + place, size + rows)
                counts.index_add_(0, place, torch.ones_like(place))
        found = counts.cpu().numpy()
        for request, lost in zip(requests, found[size:], strict=True):
            if lost:
                raise ValueError(f"{NOT_FINITE} {lost} noisy copies of input {request.index}. {OVERFLOW}")
        return found[:size].reshape(len(requests), self.num_classes), torch.cat(answers)

    @property
    def half(self) -> bool:
        r"""Whether the forward pass rounds to 16 bits."""
        weights = self.classifier.parameters() if isinstance(self.classifier, nn.Module) else ()
        kept = next((w.dtype for w in weights if w.is_floating_point()), torch.float32)
        return self.precision is not None or torch.finfo(kept).bits < 32

    def logits(self, noisy: Tensor) -> Tensor:
        r"""The classifier's logits (B, num_classes) of noisy inputs in its type, in the precision of the run."""
        with self._autocast(noisy.device):
            return self._logits(noisy)

    def chunk(self, request: Request, first: int, size: int, seed: int) -> Tensor:
        r"""The noisy inputs of a chunk, in the classifier's type, where noise is drawn."""
        device, dtype = placed(self.classifier, request.x)
        return self._draw(request, first, size, seed, noise_source(device), dtype)

    def _draw(
        self, request: Request, first: int, size: int, seed: int, source: torch.device, dtype: torch.dtype
    ) -> Tensor:
        keyed = generator(seed, request.stream, request.index, first, device=source)
        return rounded(self.noise.sample(request.x, size, keyed, self.strict), dtype)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, self.precision) if self.precision is not None else nullcontext()

    def _logits(self, noisy: Tensor) -> Tensor:
        logits = logits_of(self.classifier(noisy))
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
        source = noise_source(device)
        threads = torch.get_num_threads() if source.type == "cpu" else 1
        chunks = [(row, *chunk) for row, request in enumerate(requests) for chunk in request.chunks()]

        def draw(chunk: tuple[int, int, int]) -> Tensor:
            row, first, size = chunk
            return self._draw(requests[row], first, size, seed, source, dtype)

        size = max(threads, -(-self.batch_size // CHUNK))
        groups = [chunks[i : i + size] for i in range(0, len(chunks), size)]
        with ThreadPoolExecutor(threads) as pool:
            drawn = ahead(pool, draw, groups) if source.type == "cpu" else ([draw(c) for c in g] for g in groups)
            for group, noisy in zip(groups, drawn, strict=True):
                rows = torch.tensor([row for row, _, size in group for _ in range(size)])
                whole = noisy[0] if len(noisy) == 1 else torch.cat(noisy)
                yield whole.to(device), rows.to(device)


def noise_source(device: torch.device) -> torch.device:
    r"""Where noise is drawn: there is no float64 on MPS."""
    return torch.device("cpu") if device.type == "mps" else device


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
