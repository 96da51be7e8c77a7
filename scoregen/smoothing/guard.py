r"""Whether a classifier is a function of one input, asked of the classifier itself.

A certificate counts answers, and its proof needs that the answer to a noisy copy depends on that copy alone: not on the
other copies in the batch, on chance, on earlier calls. The guard classifies noisy copies of several inputs

- before the run: together in a batch of the size in use, again in batches of other sizes and in another order, and
  some of them each beside itself alone;
- during the run: half of one chunk of noise in 128 once more, in other company;
- after the run: half of the first batch again, and draws of chunks that were kept over the whole run, half a batch of
  them in other company and some each beside itself alone.

Compared are the differences between the classes that can win, against the margin of each copy, so that an offset of
all classes or a masked class hides nothing. Rounding may turn a near tie, so what most copies differ by is measured
first; it must be small beside the margins, no copy may differ by much more, and few answers may change.

No probing can exclude a classifier that treats these copies as it should and others not; docs/certification.md says
what is left.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scoregen.rng import Stream, generator
from scoregen.smoothing.engine import CHUNK, NOT_FINITE, OVERFLOW, Engine, Request, noise_source, placed, rounded
from scoregen.smoothing.modes import refuse_training
from scoregen.smoothing.spots import Spot, Spots, rows

KNOWN_BY = 32  # inputs whose copies are classified
SHARE = 128  # one chunk in so many is counted again
_LEAST = 8  # copies, where batches are smaller
_BESIDE = 1e-3  # of the copies that are counted again, may differ by more than rounding
_ROUNDING = 8  # what a copy may differ by, in units of what nine copies of ten do not exceed
_TURNED = 1 / 32  # of the copies may change their answer at near ties
_TURNED_HALF = 1 / 8  # in 16 bits
_ALONE = 32  # draws of the run that are asked about alone after it
_LARGE = 1e300  # replaces infinity in differences

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
AGAIN = (
    "classifier must be a function of one input, but noisy copies that were counted in the run were answered in "
    "another way when they were asked about again, so that its counts prove nothing. Remove what it keeps from call to "
    "call, and what it takes from the rest of the batch."
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
        self._spots = Spots()

    def serves(self, engine: Engine, x: Tensor) -> bool:
        r"""Whether what was asked holds for inputs like x (*S) of another engine, too."""
        return x.shape == self.inputs[0][1].shape and engine.like(self.engine)

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
        mixed = torch.randperm(max(_LEAST, size), generator=generator(2, Stream.PROBE)).to(order)
        few = mixed[: max(_LEAST, size // 8)]  # a call each
        alone = self._alone(copies[few])
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
        refuse_training(self.engine.classifier)
        half = -(-max(_LEAST, self.engine.batch_size) // 2)
        copies, spots = self._drawn()[:half], self._spots.take()
        chosen, answers = rows(spots, half)
        noisy = [self._chunk(spot, len(spot.answers))[places] for spot, places in chosen if places]
        asked, answers = torch.cat((*noisy, copies)), answers.to(copies.device)
        few = torch.linspace(0, max(0, len(answers) - 1), min(_ALONE, len(answers))).round().long()
        alone = self._alone(asked[few])
        logits = self._mixed(asked)
        if self._differ(self._first[:half], logits[-half:]):
            raise self._refusal(TURNED)
        beyond, turned = self._changed(torch.cat((alone, logits[:-half])), torch.cat((answers[few], answers)))
        if beyond > 1 or turned > max(1, self._turned * (len(few) + len(answers))):
            raise self._refusal(AGAIN)

    def count(self, requests: Sequence[Request], seed: int) -> np.ndarray:
        r"""The counts of `Engine.count`, some of which are counted again."""
        counts, answers = self.engine.count(requests, seed)
        self.recount(requests, seed, answers)
        return counts

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
        chunks = [(request, *chunk) for request in requests for chunk in request.chunks()]
        for number, (request, first, size) in enumerate(chunks, 1):
            spot = Spot(request, first, seed, answers[offset : offset + size])
            key = spot.number
            self._spots.offer(spot, key, last=number == len(chunks))
            if key % SHARE == 0:
                self._compare(spot)
            offset += size

    def _compare(self, spot: Spot) -> None:
        copies = self._drawn()
        half = max(1, min(self.engine.batch_size, CHUNK) // 2)
        noisy, answers = self._chunk(spot, half), spot.answers[:half]
        company = copies[: max(1, self.engine.batch_size - half)]
        logits = self._asked(torch.cat((noisy, company)))[: len(noisy)]
        beyond, turned = self._changed(logits, answers)
        self._again += len(answers)
        self._differing += beyond
        if self._differing > max(1, _BESIDE * self._again) or turned > max(1, 2 * self._turned * len(answers)):
            raise self._refusal(COMPANY)

    def _chunk(self, spot: Spot, most: int) -> Tensor:
        r"""The first noisy inputs of a chunk that was counted."""
        noisy = self.engine.chunk(spot.request, spot.first, len(spot.answers), spot.seed)
        return noisy[:most].to(self._drawn().device)

    def _changed(self, logits: Tensor, answers: Tensor) -> tuple[int, int]:
        r"""How many rows of logits deny their answers by more than rounding, and how many deny them at all."""
        given = logits.gather(1, answers[:, None])[:, 0]
        less = logits.max(1).values - given
        return int((~(less <= _ROUNDING * self._rounding)).sum()), int((~(less <= 0)).sum())

    def _refusal(self, why: str) -> NotAFunction:
        return NotAFunction(why + (ROUNDED if self.engine.half else ""))

    @property
    def _turned(self) -> float:
        return _TURNED_HALF if self.engine.half else _TURNED

    def _differ(self, logits: Tensor, others: Tensor) -> bool:
        r"""Whether more than one row differs by more than rounding, or many answers do."""
        share = 0.05 if self.engine.half else 0.01
        beyond = int(differ(logits, others, share, _ROUNDING * self._rounding).sum())
        turned = self._changed(others, logits.argmax(1))[1]
        return beyond > 1 or turned > max(1, self._turned * len(logits))

    def _logits(self, copies: Tensor, sizes: Sequence[int]) -> Tensor:
        r"""Logits in batches of these sizes, the last one repeated, in float64."""
        parts, rest, number = [], copies, 0
        while len(rest):
            size = sizes[min(number, len(sizes) - 1)]
            parts.append(self._asked(rest[:size]))
            rest, number = rest[size:], number + 1
        return torch.cat(parts)

    def _mixed(self, copies: Tensor) -> Tensor:
        r"""Logits in batches of the size in use, in a random order."""
        order = torch.randperm(len(copies), generator=generator(3, Stream.PROBE)).to(copies.device)
        return self._logits(copies[order], [self.engine.batch_size])[order.argsort()]

    def _alone(self, copies: Tensor) -> Tensor:
        r"""Logits of each copy beside itself alone; some networks treat a single row in another way."""
        asked = [self._asked(copy.repeat(2, *[1] * copy.ndim))[:1] for copy in copies]
        return torch.cat(asked) if asked else self._drawn().new_zeros(0, self.engine.num_classes, dtype=torch.float64)

    def _asked(self, copies: Tensor) -> Tensor:
        r"""Logits in float64, of copies that the classifier may change, in a tensor that it does not write to again."""
        return self.engine.logits(copies.clone()).to(torch.float64, copy=True)

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
