r"""Dual smoothing: for each input a selector chooses which of several smoothed classifiers answers.

    k(x) = the selector's class,        g(x) = g_{k(x)}(x).

Let k be constant on the ball of radius R0 around x, and g_{k(x)} on that of radius R1. For x' in both, k(x') = k(x),
hence g(x') = g_{k(x)}(x') = g_{k(x)}(x) = g(x). So g is constant on the ball of radius min(R0, R1). Each of the two
holds with probability 1 - alpha / 2, so both with 1 - alpha. The proof asks for one distance, not for one noise.

The draws that bound an expert are not those that chose it. On the same draws the best of K experts would be chosen by
its luck, and its certificate would fail with up to K alpha / 2.

Reference: arXiv 2512.01782, theorems 4.1 and 4.2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoregen.rng import generator as keyed_generator
from scoregen.smoothing.bounds import check_alpha
from scoregen.smoothing.certificate import ABSTAIN, Certificate
from scoregen.smoothing.choice import make_method
from scoregen.smoothing.methods import AbstractMethod
from scoregen.smoothing.smoothed_classifier import SmoothedClassifier, derive_seed

_NEARLY = 0.999  # of the largest radius that n draws prove


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
                expert at least; one of smaller noise goes as far as n allows. None: twice each part's noise.
            step: distance of the ladder's radii in every part; None: half of each part's sigma.

        Raises:
            ValueError: n or n_selector is too small, the noise does not suit an input, or a part is no function of one
                input.
        """
        check_alpha(alpha)
        asked = _Question(n, n0, alpha / 2, method, step)
        chooser = replace(asked, n=n if n_selector is None else n_selector)
        chooser.rule("selector (n is n_selector)", self.selector, max_radius)
        limits = self._limits(asked, max_radius)
        seed = derive_seed(generator)
        chosen = chooser.certify(self.selector, x, indices, _own(seed, 0), max_radius)
        numbers = list(range(len(x)) if indices is None else indices)
        found: dict[int, Certificate] = {}
        for k, rows in self._shares([certificate.label for certificate in chosen]):
            own = [numbers[row] for row in rows]
            certified = asked.certify(self.experts[k], x[rows], own, _own(seed, 1 + k), limits[k])
            found |= dict(zip(rows, certified, strict=True))
        self._ask_again(x, numbers, [certificate.label for certificate in chosen])
        classes = self.experts[0].num_classes
        return [joined(choice, found.get(row), alpha, classes) for row, choice in enumerate(chosen)]

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
        labels = torch.full((len(x),), ABSTAIN, dtype=torch.int64)
        for k, rows in self._shares(chosen):
            own = [numbers[row] for row in rows]
            labels[rows] = self.experts[k].predict(x[rows], n, alpha / 2, _own(seed, 1 + k), own)
        self._ask_again(x, numbers, chosen)
        return labels

    def _shares(self, chosen: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        r"""Each expert that was chosen, and the rows it was chosen for."""
        for k in range(len(self.experts)):
            if rows := [row for row, choice in enumerate(chosen) if choice == k]:
                yield k, rows

    def _limits(self, asked: "_Question", max_radius: float | None) -> list[float | None]:
        r"""The largest radius of interest of each expert; refused where no expert can certify max_radius."""
        rules = [asked.rule(f"experts[{k}]", expert, None) for k, expert in enumerate(self.experts)]
        if max_radius is None:
            return [None] * len(rules)
        ends = [
            _NEARLY * expert.noise.radius(p, 1.0 - p)
            for expert, p in zip(self.experts, [rule.ceiling() for rule in rules], strict=True)
        ]
        if max(ends) < max_radius:
            furthest = ends.index(max(ends))
            asked.rule(f"experts[{furthest}]", self.experts[furthest], max_radius)
        return [min(max_radius, end) for end in ends]

    def _ask_again(self, x: Tensor, numbers: Sequence[int], chosen: Sequence[int]) -> None:
        r"""Whether selector and experts are still what they were: one may share modules with another, and change them.

        Raises:
            ValueError: one is not.
        """
        if len(x):
            self.selector.examine([(numbers[0], x[0])]).after()
        for k, rows in self._shares(chosen):
            self.experts[k].examine([(numbers[rows[0]], x[rows[0]])]).after()


@dataclass(frozen=True)
class _Question:
    r"""What a part is asked for; arguments as `SmoothedClassifier.certify`."""

    n: int
    n0: int
    alpha: float
    method: str
    step: float | None

    def rule(self, name: str, part: SmoothedClassifier, max_radius: float | None) -> AbstractMethod:
        r"""The method of a part, made before any draw; what is wrong is said with the part's name."""
        try:
            return make_method(
                self.method, part.noise, self.n, n0=self.n0, alpha=self.alpha, max_radius=max_radius, step=self.step
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def certify(
        self,
        part: SmoothedClassifier,
        x: Tensor,
        indices: Sequence[int] | None,
        generator: torch.Generator,
        max_radius: float | None,
    ) -> list[Certificate]:
        r"""The part's own certificates."""
        return part.certify(
            x,
            self.n,
            alpha=self.alpha,
            n0=self.n0,
            method=self.method,
            generator=generator,
            indices=indices,
            max_radius=max_radius,
            step=self.step,
        )


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
