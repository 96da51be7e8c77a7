r"""Dual smoothing: for each input a selector chooses which of several smoothed classifiers answers.

    k(x) = the selector's class,        g(x) = g_{k(x)}(x).

Let k be constant on the ball of radius R0 around x, and g_{k(x)} on that of radius R1. For x' in both, k(x') = k(x),
hence g(x') = g_{k(x)}(x') = g_{k(x)}(x) = g(x). So g is constant on the ball of radius min(R0, R1). Each of the two
holds with probability 1 - alpha / 2, so both with 1 - alpha. The proof asks for one distance, not for one noise.

The draws that bound an expert are not those that chose it. On the same draws the best of K experts would be chosen by
its luck, and its certificate would fail with up to K alpha / 2.

Reference: arXiv 2512.01782, theorems 4.1 and 4.2.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from scoregen.rng import generator as keyed_generator
from scoregen.smoothing.bounds import check_alpha
from scoregen.smoothing.certificate import ABSTAIN, Certificate, conclude
from scoregen.smoothing.dual_rules import DualMethod, make_dual_method
from scoregen.smoothing.header import radii
from scoregen.smoothing.inputs import numbered, spread
from scoregen.smoothing.methods import AbstractMethod
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier, derive_seed

BLOCK = 32  # inputs that the selector sees before the experts; an interruption loses at most as many
SELECTOR = "selector"


def part_names(experts: int) -> list[str]:
    r"""The names of the parts in the header of certificates: the selector, then each expert by its place."""
    return [SELECTOR, *(f"expert {k}" for k in range(experts))]


class DualSmoothing:
    r"""Several smoothed classifiers, of which another one chooses for each input: g(x) = g_{k(x)}(x).

        Typically one expert for each sigma: easy inputs get a large one, hard ones a small one. The experts may be
        classifiers trained under their sigma, or one classifier behind `PurifiedClassifier` at each sigma.

    Args:
        selector: its classes are the places of the experts; its sigma is about the largest of theirs, since no radius
            exceeds its own.
        experts: two or more, with the same classes.

    Raises:
        ValueError: the selector has not one class for each expert, the experts' classes differ in number, or the noises
            measure different distances.
    """

    def __init__(self, selector: SmoothedClassifier, experts: Sequence[SmoothedClassifier]) -> None:
        self.selector, self.experts = selector, tuple(experts)
        if selector.num_classes != len(self.experts):
            raise ValueError(
                f"selector must have one class for each expert, got num_classes={selector.num_classes} and "
                f"{len(self.experts)} experts. Set num_classes of the selector to the number of experts."
            )
        classes = [expert.num_classes for expert in self.experts]
        if len(set(classes)) > 1:
            raise ValueError(f"experts must have the same classes, got num_classes={classes}.")
        distances = [part.noise.distance for part in (selector, *self.experts)]
        if len(set(distances)) > 1:
            raise ValueError(
                f"selector and experts must measure one distance, got {distances[0]} for the selector and "
                f"{', '.join(distances[1:])} for the experts. Use noises of one norm, whose radii can be compared."
            )

    def certify(
        self,
        x: Tensor,
        n: int = 100_000,
        *,
        alpha: float = 1e-3,
        n0: int = 100,
        n_selector: int | None = None,
        method: str = "ladder",
        generator: torch.Generator | None = None,
        indices: Sequence[int] | None = None,
        max_radius: float | None = None,
        step: float | None = None,
    ) -> list[Certificate]:
        r"""A certificate for each input, with the selector's inside it; arguments as `SmoothedClassifier.certify`.

        An expert draws only for the inputs that the selector gave to it. Where the selector abstains, no expert draws:
        the certificate abstains, with n = 0 and no candidate (-1).

        Args:
            n: draws of an expert for an input (ladder, stitched: at most).
            alpha: failure probability of each certificate; selector and expert get half of it each.
            n0: draws that choose a class, for each of the two parts.
            n_selector: draws of the selector for an input; None: n.
            generator: gives one seed, from which each part has a seed of its own.
            max_radius: the largest radius of interest, of the selector too. n must be able to certify it with one
                expert at least; one of smaller noise goes as far as n allows. None: twice the selector's noise, as far
                as n_selector allows.
            step: distance of the ladder's radii, which all parts share; None: half of the smallest sigma.

        Raises:
            ValueError: n or n_selector is too small, the noise does not suit an input, or a part is no function of one
                input.
        """
        rules = make_dual_method(
            method,
            self.selector.noise,
            [expert.noise for expert in self.experts],
            n,
            n_selector=n_selector,
            n0=n0,
            alpha=alpha,
            max_radius=max_radius,
            step=step,
        )
        inputs = numbered(x, indices)
        found = dict(self.stream(inputs, rules, derive_seed(generator), block=len(x)))
        return [found[i] for i, _ in inputs]

    @property
    def parts(self) -> tuple[SmoothedClassifier, ...]:
        r"""The selector, then the experts."""
        return (self.selector, *self.experts)

    def stream(
        self, inputs: Iterable[tuple[int, Tensor]], method: DualMethod, seed: int, block: int = BLOCK
    ) -> Iterator[tuple[int, Certificate]]:
        r"""Certificates as they are finished; nothing of them holds before the last one was taken.

        Args:
            inputs: (index, x) with x of shape (*S); indices must differ.
            method: of `make_dual_method` with the noises of the parts.
            seed: seed of the noise.
            block: inputs that are read at once: the selector sees them all before an expert sees one.
        """
        waiting, used = iter(inputs), dict[int, tuple[int, Tensor]]()
        while some := list(islice(waiting, block)):
            chosen = dict(self._certified(0, some, method.selector, seed, used))
            for k, rows in self._shares([chosen[index].label for index, _ in some]):
                share = [some[row] for row in rows]
                for index, own in self._certified(1 + k, share, method.experts[k], seed, used):
                    yield index, joined(chosen[index], own, method.alpha, own.counts.numel())
            classes = self.experts[0].num_classes
            unsure = ((index, choice) for index, choice in chosen.items() if choice.label == ABSTAIN)
            yield from ((index, joined(choice, None, method.alpha, classes)) for index, choice in unsure)
        self._ask_again(used)

    def _certified(
        self,
        place: int,
        inputs: Sequence[tuple[int, Tensor]],
        method: AbstractMethod,
        seed: int,
        used: dict[int, tuple[int, Tensor]],
    ) -> Iterator[tuple[int, Certificate]]:
        r"""A part's own certificates; it is entered among those that are used, with an input of its own."""
        part = self.parts[place]
        part.examine(spread(inputs))
        used.setdefault(place, inputs[0])
        for index, tally in part.rounds(inputs, method, derive_seed(_own(seed, place))):
            yield index, conclude(tally, method, part.noise)

    def examine(self, inputs: Sequence[tuple[int, Tensor]]) -> None:
        r"""Asks all parts whether they are functions of one input, as `SmoothedClassifier.examine`."""
        for part in self.parts:
            part.examine(inputs)

    def header(self, method: DualMethod, known: Sequence[tuple[int, Tensor]]) -> dict[str, Any]:
        r"""What determines the certificates of a method, as plain data; `known`: inputs that tell classifiers apart."""
        noises = ", ".join(repr(expert.noise) for expert in self.experts)
        rules = (method.selector, *method.experts)
        named = zip(part_names(len(self.experts)), self.parts, rules, strict=True)
        return {
            "noise": f"{self.selector.noise!r} chooses one of {noises}",
            "alpha": method.alpha,
            "n": method.n,
            "method": repr(method),
            "num_classes": self.experts[0].num_classes,
            **radii(self.selector.noise, method.selector),  # no radius exceeds the selector's
            "step": min(part.noise.step for part in self.parts),
            "parts": {name: part.header(rule, known) for name, part, rule in named},
        }

    def predict(
        self,
        x: Tensor,
        n: int = 1000,
        alpha: float = 1e-3,
        generator: torch.Generator | None = None,
        indices: Sequence[int] | None = None,
    ) -> Tensor:
        r"""The labels g(x), each right with probability 1 - alpha; -1 (abstain) where one of the two parts abstains.

        Arguments as `SmoothedClassifier.predict`; n draws for the selector and n for the expert.

        Returns:
            (B,) int64 on the CPU.
        """
        check_alpha(alpha)
        seed = derive_seed(generator)
        chosen = self.selector.predict(x, n, alpha / 2, _own(seed, 0), indices).tolist()
        numbers = list(range(len(x)) if indices is None else indices)
        used = {0: (numbers[0], x[0])} if len(x) else {}
        labels = torch.full((len(x),), ABSTAIN, dtype=torch.int64)
        for k, rows in self._shares(chosen):
            own = [numbers[row] for row in rows]
            labels[rows] = self.experts[k].predict(x[rows], n, alpha / 2, _own(seed, 1 + k), own)
            used[1 + k] = (own[0], x[rows[0]])
        self._ask_again(used)
        return labels

    def _shares(self, chosen: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        r"""Each expert that was chosen, and the rows it was chosen for."""
        for k in range(len(self.experts)):
            if rows := [row for row, choice in enumerate(chosen) if choice == k]:
                yield k, rows

    def _ask_again(self, used: dict[int, tuple[int, Tensor]]) -> None:
        r"""Whether the parts are still what they were: one may share modules with another, and change them.

        Args:
            used: an input of each part that was used, by its place.

        Raises:
            ValueError: one is not.
        """
        for place, one in used.items():
            self.parts[place].examine([one]).after()


def _own(seed: int, part: int) -> torch.Generator:
    r"""The generator of a part (0: selector, 1 + k: expert k), so that no two parts share draws."""
    return keyed_generator(seed, part)


def joined(selector: Certificate, expert: Certificate | None, alpha: float, num_classes: int) -> Certificate:
    r"""What a choice and the certificate of the chosen expert prove together.

    Args:
        selector: at alpha / 2. expert: at alpha / 2, of the expert `selector.label`; None where the selector abstains.
        alpha: of both together.
        num_classes: of the experts.
    """
    if expert is None:
        none = torch.zeros(num_classes, dtype=torch.int64)
        return Certificate(ABSTAIN, 0.0, selector.norm, 0.0, 1.0, none, 0, alpha, ABSTAIN, selector=selector)
    radius = min(selector.radius, expert.radius)
    label = expert.label if radius > 0.0 else ABSTAIN
    return replace(expert, label=label, radius=radius, alpha=alpha, selector=selector)
