r"""Whether a classifier is a function of one input, asked of the classifier itself.

A certificate counts answers, and its proof needs that the answer to a noisy copy depends on that copy alone: not on the
other copies in the batch, on chance, on earlier calls. The guard classifies noisy copies of several inputs

- before the run: together in a batch of the size in use, again in batches of other sizes and in another order, and
  each beside itself alone;
- during the run: half of one chunk of noise in 128 once more, in other company;
- after the run: the first batch again.

Compared are the differences between the classes that can win, against the margin of each copy, so that an offset of
all classes or a masked class hides nothing. Rounding may turn a near tie, so what most copies differ by is measured
first; it must be small beside the margins, and no copy may differ by much more.

No probing can exclude a classifier that treats these copies as it should and others not; docs/certification.md says
what is left.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from scoregen.keys import derive_seed
from scoregen.rng import Stream, generator
from scoregen.smoothing.engine import CHUNK, NOT_FINITE, OVERFLOW, Engine, Request, noise_source, placed, rounded

KNOWN_BY = 32  # inputs whose copies are classified
SHARE = 128  # one chunk in so many is counted again
_LEAST = 8  # copies, where batches are smaller
_BESIDE = 1e-3  # of the copies that are counted again, may differ by more than rounding
_ROUNDING = 8  # what a copy may differ by, in units of what nine copies of ten do not exceed
_LARGE = 1e30  # replaces infinity in differences

CHANCE = (
    "classifier must be deterministic, but the same input gave different logits. Disable its dropout or internal noise."
)
COMPANY = (
    "classifier must treat each input by itself, but its logits for an input changed with the other inputs in the "
    "batch, so that its counts prove nothing. Call model.eval() before exporting it (batch norm)."
)
TURNED = (
    "classifier must be the same function during the whole run, but after it the inputs of the beginning were answered "
    "in another way, so that its counts prove nothing. Remove what it keeps from call to call."
)
ROUNDED = " In half precision rounding alone can do this where margins are small: precision=no tells."


class NotAFunction(ValueError):
    r"""Raised where a classifier's answer depends on more than its input."""


class Guard:
    r"""The questions to a classifier.

    Args:
        engine: of the counts.
        inputs: (index, x (*S)), one or more; `KNOWN_BY` are enough.
    """

    def __init__(self, engine: Engine, inputs: Sequence[tuple[int, Tensor]]) -> None:
        self.engine, self.inputs = engine, inputs
        self._copies: Tensor | None = None
        self._first: Tensor | None = None
        self._rounding = 0.0  # in logits
        self._again = self._differing = 0

    def serves(self, engine: Engine, x: Tensor) -> bool:
        r"""Whether what was asked holds for inputs like x (*S) in batches of another engine, too."""
        return x.shape == self.inputs[0][1].shape and engine.batch_size == self.engine.batch_size

    @torch.no_grad()
    def before(self) -> None:
        r"""Asks whether the answers depend on chance or on the rest of the batch; asks once.

        Raises:
            NotAFunction: they do.
        """
        if self._first is not None:
            return
        copies, size = self._drawn(), self.engine.batch_size
        first = self._logits(copies, [size])
        if lost := int((~first.max(1).values.isfinite()).sum()):
            raise ValueError(f"{NOT_FINITE} {lost} of {len(first)} noisy inputs. {OVERFLOW}")
        order = torch.arange(len(copies) - 1, -1, -1, device=copies.device)
        order = torch.cat((order[::3], order[1::3], order[2::3]))
        other = self._logits(copies[order], [17, max(1, size // 2), size])
        few = order[: max(_LEAST, self.engine.batch_size // 8)]  # a call each
        alone = torch.cat([self.engine.logits(copy.expand(2, *copy.shape))[:1] for copy in copies[few]])
        self._rounding = rounding_of(first[order], other, 2e-2 if self.engine.half else 2e-3)
        for logits, others in ((first[order], other), (first[few], alone)):
            if self._differ(logits, others):
                repeated = self._logits(copies, [size])
                raise self._refusal(CHANCE if self._differ(first, repeated) else COMPANY)
        self._first = first

    @torch.no_grad()
    def after(self) -> None:
        r"""Asks whether the answers are those of the beginning.

        Raises:
            NotAFunction: they are not.
        """
        if self._first is None:
            return
        if self._differ(self._first, self._logits(self._drawn(), [self.engine.batch_size])):
            raise self._refusal(TURNED)

    @torch.no_grad()
    def recount(self, requests: Sequence[Request], seed: int, answers: Tensor) -> None:
        r"""Counts half of some chunks of finished requests again, beside other inputs.

        Args:
            requests: as `Engine.count` had them. seed: seed of the noise.
            answers: (draws,) the class of each draw, in the order of the requests.

        Raises:
            NotAFunction: more answers changed than rounding explains.
        """
        offset = 0
        for request in requests:
            for first, size in request.chunks():
                if derive_seed(seed, Stream.PROBE, request.stream, request.index, first) % SHARE == 0:
                    self._compare(request, first, seed, answers[offset : offset + size])
                offset += size

    def _compare(self, request: Request, first: int, seed: int, answers: Tensor) -> None:
        copies = self._drawn()
        half = max(1, min(self.engine.batch_size, CHUNK) // 2)
        noisy = self.engine.chunk(request, first, len(answers), seed).to(copies.device)[:half]
        answers, company = answers[:half], copies[: max(1, self.engine.batch_size - half)]
        logits = self.engine.logits(torch.cat((noisy, company)))[: len(noisy)].double()
        largest, given = logits.max(1).values, logits.gather(1, answers[:, None])[:, 0]
        self._again += len(answers)
        self._differing += int((~(largest - given <= _ROUNDING * self._rounding)).sum())
        if self._differing > max(1, _BESIDE * self._again):
            raise self._refusal(COMPANY)

    def _refusal(self, why: str) -> NotAFunction:
        return NotAFunction(why + (ROUNDED if self.engine.half else ""))

    def _differ(self, logits: Tensor, others: Tensor) -> bool:
        r"""Whether more than one row differs by more than rounding."""
        half = self.engine.half
        return int(differ(logits, others, 0.05 if half else 0.01, _ROUNDING * self._rounding).sum()) > 1

    def _logits(self, copies: Tensor, sizes: Sequence[int]) -> Tensor:
        r"""Logits in batches of these sizes, the last one repeated, in float64."""
        parts, rest, number = [], copies, 0
        while len(rest):
            size = sizes[min(number, len(sizes) - 1)]
            parts.append(self.engine.logits(rest[:size]))
            rest, number = rest[size:], number + 1
        return torch.cat(parts).double()

    def _drawn(self) -> Tensor:
        r"""Batches of noisy copies: one of many inputs, darker ones and blends of two; one or two of an input each."""
        if self._copies is None:
            count = max(_LEAST, self.engine.batch_size)
            device, dtype = placed(self.engine.classifier, self.inputs[0][1])
            made = [self._copy(number, device) for number in range(count)]
            made += [self._alike(place, count, device) for place in {0, len(self.inputs) // 2}]  # as in the run
            self._copies = rounded(torch.cat(made), dtype).to(device)
        return self._copies

    def _alike(self, place: int, count: int, device: torch.device) -> Tensor:
        index, x = self.inputs[place]
        keyed = generator(1, Stream.PROBE, index, device=noise_source(device))
        return self.engine.noise.sample(x, count, keyed, self.engine.strict)

    def _copy(self, number: int, device: torch.device) -> Tensor:
        kind, place = divmod(number, len(self.inputs))
        index, x = self.inputs[place]
        other = self.inputs[(place + 1 + kind // 4) % len(self.inputs)][1]
        base = (x, 0.25 * x, 0.5 * (x + other), 0.5 * x)[kind % 4]
        keyed = generator(0, Stream.PROBE, index, kind, device=noise_source(device))
        return self.engine.noise.sample(base, 1, keyed, self.engine.strict)


def margins(logits: Tensor) -> Tensor:
    r"""By how much the largest of logits (B, K) exceeds the second, (B,)."""
    top = logits.clamp(-_LARGE, _LARGE).topk(2).values
    return top[:, 0] - top[:, 1]


def decisive(logits: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    r"""Of two logits (B, K) the classes that win or come second in either, without their mean, (B, 4) each."""
    top = torch.cat([x.topk(2).indices for x in (logits, others)], 1)
    kept = [x.gather(1, top).clamp(-_LARGE, _LARGE) for x in (logits, others)]
    return kept[0] - kept[0].mean(1, keepdim=True), kept[1] - kept[1].mean(1, keepdim=True)


def rounding_of(logits: Tensor, others: Tensor, most: float) -> float:
    r"""The difference that nine rows of ten do not exceed; 0 where it is more than a share of the usual margin."""
    a, b = decisive(logits, others)
    usual = float((a - b).abs().amax(1).quantile(0.9))
    typical = float(margins(logits).median())
    return usual if usual <= most * typical else 0.0


def differ(logits: Tensor, others: Tensor, share: float, rounding: float) -> Tensor:
    r"""Which rows of two logits (B, K) differ in what decides the answer, (B,).

    Args:
        logits, others: compared in the classes that win or come second in either.
        share: of a row's own margin that the difference may have.
        rounding: difference that is always allowed.
    """
    a, b = decisive(logits, others)
    margin = torch.minimum(margins(logits), margins(others))
    return ~((a - b).abs().amax(1) <= share * margin + rounding)  # NaN differs from everything
