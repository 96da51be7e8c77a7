r"""The smoothed classifier: g(x) = argmax_c P(f(noisy x) = c), its prediction and its certificate."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from scoregen.checks import whole
from scoregen.smoothing.certificate import Certificate, conclude
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.classifiers import Classify
from scoregen.smoothing.engine import Engine, Request, placed
from scoregen.smoothing.explanations import Explanation, Question, check_gaussian, explain_input
from scoregen.smoothing.guard import Guard
from scoregen.smoothing.header import header
from scoregen.smoothing.inputs import checked, numbered, spread
from scoregen.smoothing.methods import AbstractMethod, Tally
from scoregen.smoothing.modes import refuse_training
from scoregen.smoothing.noise import AbstractNoise
from scoregen.smoothing.prediction import Prediction, decide, make_vote

ROUND = 16  # batches between two transfers of counts, where several inputs can share them


def derive_seed(generator: torch.Generator | None) -> int:
    r"""One 63-bit seed from a generator (None: torch's global one)."""
    device = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))


class SmoothedClassifier:
    r"""A classifier smoothed by noise.

        g(x) = argmax_c P(f(noisy x) = c)

    What is certified is g, which also predicts (`predict`): f alone has no guarantee. Whatever f does first
    (normalise, clip, denoise) is part of f, and f must answer the same for the same input.

    Args:
        classifier: f: (B, *S) in the data's own units -> logits (B, num_classes), in evaluation mode.
        noise: for example Gaussian(0.5); its size is in the input's own units.
        num_classes: number of logits, at least 2.
        batch_size: draws in one forward pass; None: 128 on a CPU (the cache), 1024 elsewhere.
        strict: float64 noise; False is faster, but rounding then reveals x, which a hostile classifier can use.
        precision: torch.bfloat16 or torch.float16 for the forward pass; that rounded classifier is then f, here and
            in deployment.

    Raises:
        TypeError: the noise is not one of this package.
        ValueError: a classifier in training mode, or fewer than two classes.
    """

    def __init__(
        self,
        classifier: Classify,
        noise: AbstractNoise,
        num_classes: int,
        *,
        batch_size: int | None = None,
        strict: bool = True,
        precision: torch.dtype | None = None,
    ) -> None:
        refuse_training(classifier)
        if not isinstance(noise, AbstractNoise):
            raise TypeError(f"noise must be a noise of scoregen.smoothing, such as Gaussian(0.5), got {noise!r}.")
        whole(2, num_classes=num_classes)
        if batch_size is not None:
            whole(1, batch_size=batch_size)
        self.classifier, self.noise, self.num_classes = classifier, noise, int(num_classes)
        self.batch_size = None if batch_size is None else int(batch_size)
        self.strict, self.precision = strict, precision
        self._guard: Guard | None = None

    def certify(
        self,
        x: Tensor,
        n: int = 100_000,
        *,
        alpha: float = 1e-3,
        n0: int = 100,
        method: str = "ladder",
        generator: torch.Generator | None = None,
        indices: Sequence[int] | None = None,
        max_radius: float | None = None,
        step: float | None = None,
    ) -> list[Certificate]:
        r"""A certificate for each input.

        Args:
            x: inputs (B, *S), in their own units.
            n: draws for an input (ladders, stitched: at most).
            alpha: failure probability of each certificate.
            n0: draws that choose the class.
            method: ladder (a grid of radii, the cheapest), fixed, selection_free, top2, stitched or ladder_top2.
            generator: gives one seed; seed and index of an input determine its noise. None: torch's global one.
            indices: the inputs' numbers in the data set, the keys of their noise (None: 0, 1, ...).
            max_radius: the largest radius of interest, at which ladders and stitched stop; n must be able to certify
                it. None: twice the noise's size, as far as n allows.
            step: distance of a ladder's radii.

        Raises:
            ValueError: n is too small, or the noise does not suit an input.
        """
        rule = make_method(method, self.noise, n, n0=n0, alpha=alpha, max_radius=max_radius, step=step)
        if len(x):
            self.examine(spread(numbered(x, indices)))
        found = dict(self.stream(numbered(x, indices), rule, derive_seed(generator)))
        return [found[i] for i, _ in numbered(x, indices)]

    def predict(
        self,
        x: Tensor,
        n: int = 1000,
        alpha: float = 1e-3,
        generator: torch.Generator | None = None,
        indices: Sequence[int] | None = None,
        *,
        method: str = "sequential",
    ) -> Tensor:
        r"""The labels g(x), each right with probability 1 - alpha; -1 (abstain) if n draws are inconclusive.

        Arguments as `certify`.

        Args:
            n: draws for an input (sequential: at most).
            method: "sequential" stops where the test is sure or will not be; "fixed" always draws n (Cohen's PREDICT).

        Returns:
            (B,) int64 on the CPU.
        """
        vote, inputs = make_vote(method, n, alpha), numbered(x, indices)
        if len(x):
            self.examine(spread(inputs))
        found = dict(self.predictions(inputs, vote, derive_seed(generator)))
        return torch.tensor([found[i].label for i, _ in inputs], dtype=torch.int64)

    def explain(
        self,
        x: Tensor,
        n: int = 10_000,
        alpha: float = 1e-3,
        *,
        n0: int = 100,
        classes: Sequence[int] | None = None,
        top: int | None = None,
        generator: torch.Generator | None = None,
        indices: Sequence[int] | None = None,
    ) -> list[Explanation]:
        r"""What raises a class's probability near each input: a gradient, its error, and where it stays an ascent.

        Other arguments as `certify`.

        Args:
            n: draws for an input; the classifier may be a black box.
            alpha: failure probability of one statement about one input.
            classes: to explain, one for each input; None: those that n0 further draws choose.
            top: certify which entries are among these many largest gradients; needs a backward pass a draw.

        Raises:
            TypeError: the noise is not Gaussian.
            ValueError: the classifier is no function of one input, or has no gradient where `top` needs it.
        """
        check_gaussian(self.noise)
        inputs, question = numbered(x, indices), Question(n, alpha, n0, top, derive_seed(generator))
        labels = [None] * len(x) if classes is None else list(classes)
        if len(labels) != len(x) or not all(c is None or 0 <= c < self.num_classes for c in labels):
            raise ValueError(f"classes must hold {len(x)} labels below {self.num_classes}, got {labels}.")
        if not len(x):
            return []
        guard = self.examine(spread(inputs))
        wanted = [(i, checked(i, one, self.noise), label) for (i, one), label in zip(inputs, labels, strict=True)]
        found = [explain_input(guard, one, i, label, question) for i, one, label in wanted]
        guard.after()
        return found

    def stream(
        self, inputs: Iterable[tuple[int, Tensor]], method: AbstractMethod, seed: int
    ) -> Iterator[tuple[int, Certificate]]:
        r"""Certificates as they are finished, from inputs that are read when there is room for them.

        Args:
            inputs: (index, x) with x of shape (*S); indices must differ.
            method: when to stop and what counts prove.
            seed: seed of the noise.
        """
        for index, tally in self.tallies(inputs, method, seed):
            yield index, conclude(tally, method, self.noise)

    def predictions(
        self, inputs: Iterable[tuple[int, Tensor]], vote: AbstractMethod, seed: int
    ) -> Iterator[tuple[int, Prediction]]:
        r"""Labels as they are decided; arguments as `stream`, with a vote of `make_vote`."""
        for index, tally in self.tallies(inputs, vote, seed):
            yield index, decide(tally, vote)

    def tallies(
        self, inputs: Iterable[tuple[int, Tensor]], method: AbstractMethod, seed: int
    ) -> Iterator[tuple[int, Tally]]:
        r"""The finished counts of each input; arguments as `stream`.

        A `Guard` asks before, meanwhile and at the end whether the classifier is a function of one input: of what is
        certified nothing holds before the last tally was taken.
        """
        asked = False
        for found in self.rounds(inputs, method, seed):
            asked = True
            yield found
        if asked and self._guard is not None:
            self._guard.after()

    def rounds(
        self, inputs: Iterable[tuple[int, Tensor]], method: AbstractMethod, seed: int
    ) -> Iterator[tuple[int, Tally]]:
        r"""As `tallies`, but the classifier is not asked at the end: whoever takes the tallies must do so (`examine`).

        Each round collects the next requests of the open inputs and opens new inputs until there are draws for `ROUND`
        batches. It counts them all in shared batches and transfers the counts once.
        """
        refuse_training(self.classifier)
        waiting = iter(inputs)
        open_inputs: dict[int, tuple[Tensor, Tally]] = {}
        guard: Guard | None = None
        while True:
            wanted = [self._want(i, x, tally, method) for i, (x, tally) in open_inputs.items()]
            budget = ROUND * (guard.engine.batch_size if guard else 1) - sum(request.draws for request in wanted)
            while budget > 0 and (arrival := next(waiting, None)) is not None:
                index, x = arrival[0], checked(*arrival, self.noise)
                guard = guard or self.examine([(index, x)])
                open_inputs[index] = (x, Tally())
                wanted.append(self._want(index, *open_inputs[index], method))
                budget = ROUND * guard.engine.batch_size - sum(request.draws for request in wanted)
            if not wanted or guard is None:
                break
            counted, done = guard.count(wanted, seed), []
            for request, counts in zip(wanted, counted, strict=True):
                tally = open_inputs[request.index][1]
                tally.add(request.stream, counts)
                if method.request(tally) is None:
                    del open_inputs[request.index]
                    done.append((request.index, tally))
            yield from done

    def _want(self, index: int, x: Tensor, tally: Tally, method: AbstractMethod) -> Request:
        wanted = method.request(tally)
        assert wanted is not None  # a finished input is closed
        return Request(x, index, wanted[0], tally.drawn, wanted[1])

    def header(self, method: AbstractMethod, known: Sequence[tuple[int, Tensor]]) -> dict[str, Any]:
        r"""What determines the certificates of a method, as plain data; `known`: inputs that tell classifiers apart."""
        return header(self, method, known)

    def examine(self, inputs: Sequence[tuple[int, Tensor]]) -> Guard:
        r"""Asks on noisy copies of (index, x (*S)) whether the classifier is a function of one input; asks once.

        Args:
            inputs: the more they differ the better; of more than 32 those evenly spread are enough.

        Returns:
            The guard, whose `after` asks again.

        Raises:
            ValueError: its answer depends on chance, or on the rest of the batch.
        """
        refuse_training(self.classifier)
        engine = self._engine(inputs[0][1])
        if self._guard is None or not self._guard.serves(engine, inputs[0][1]):
            self._guard = Guard(engine, [(index, checked(index, x, self.noise)) for index, x in inputs])
        self._guard.before()
        return self._guard

    def _engine(self, x: Tensor) -> Engine:
        size = self.batch_size or (128 if placed(self.classifier, x)[0].type == "cpu" else 1024)
        return Engine(
            self.classifier,
            self.noise,
            self.num_classes,
            batch_size=size,
            strict=self.strict,
            precision=self.precision,
        )
