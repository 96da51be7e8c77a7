r"""The numbers of an evaluation, from features.

Numbers that cost the square of the number of images (kernel and energy distance, precision, recall, density, coverage)
are taken on a fixed subset; the others on all images.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoregen.checks import inside, whole
from scoregen.metrics.bootstrap import frechet_interval
from scoregen.metrics.classes import class_balance, confidence
from scoregen.metrics.features import FeatureExtractor
from scoregen.metrics.frechet import frechet_distance
from scoregen.metrics.kernel import energy_distance, kernel_distance
from scoregen.metrics.manifold import density_coverage, precision_recall
from scoregen.metrics.moments import Moments
from scoregen.metrics.neighbours import nearest_neighbours
from scoregen.metrics.report import Number
from scoregen.rng import Stream, generator

_SUSPICIOUS = 10


@dataclass(frozen=True)
class Settings:
    r"""The settings of an evaluation.

    Args:
        bootstrap: resamples for the interval of the Frechet distance, each at the cost of one distance; 0: no interval.
        subset: the most generated and the most reference images in the numbers of quadratic cost.
        k: neighbours of precision and recall. k_coverage: of density and coverage.
        alpha: share of images that memorisation flags by chance.
        uint8: round images to 8 bits, as a file does, before features are taken.
        batch_size: images at a time.
        seed: seed of the subset and the resampling.
    """

    bootstrap: int = 100
    subset: int = 5_000
    k: int = 3
    k_coverage: int = 5
    alpha: float = 0.01
    uint8: bool = True
    batch_size: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bootstrap != 0:
            whole(2, bootstrap=self.bootstrap)
        whole(10, subset=self.subset)
        whole(1, k=self.k, k_coverage=self.k_coverage, batch_size=self.batch_size)
        inside(0, 1, "()", alpha=self.alpha)


class Measurement:
    r"""The features of one evaluation and the numbers from them; without held-out images they have no floor."""

    def __init__(
        self,
        settings: Settings,
        generated: Tensor,
        training: Tensor,
        held_out: Tensor | None,
        extractor: FeatureExtractor,
    ) -> None:
        self.settings, self.extractor = settings, extractor
        self.details: dict[str, Any] = {}
        self.generated, self.training, self.held_out = generated, training, held_out
        self.few, self.few_reference = (self._some(x, settings.subset, i) for i, x in ((1, generated), (2, training)))
        self.floor = None if held_out is None else self._some(held_out, len(generated), 0)
        self.few_floor = None if held_out is None else self._some(held_out, len(self.few), 0)
        samples = (self.few, self.few_reference, self.few_floor)
        self.k_fits = min(len(x) for x in samples if x is not None)

    def _some(self, x: Tensor, n: int, key: int) -> Tensor:
        if n >= len(x):
            return x
        draws = generator(self.settings.seed, Stream.SUBSET, key)
        return x[torch.randperm(len(x), generator=draws)[:n].sort().values]

    def numbers(self) -> list[Number]:
        r"""All numbers, in the order of the table; fills `details`."""
        groups = [self._frechet, self._two_sample, self._manifold, self._memorised, self._classes]
        return [number for group in groups for number in group()]

    def _frechet(self) -> list[Number]:
        reference, settings = Moments.of(self.training), self.settings
        floor = None if self.floor is None else frechet_distance(self.floor, reference)
        name = self.extractor.frechet_name
        if settings.bootstrap == 0:
            return [Number(name, frechet_distance(self.generated, reference), "lower", floor)]
        found = frechet_interval(self.generated, reference, settings.bootstrap, seed=settings.seed)
        note = f"95 % bootstrap, {settings.bootstrap} resamples; estimated bias {found.bias:.3g}"
        return [Number(name, found.value, "lower", floor, found.low, found.high, note)]

    def _two_sample(self) -> list[Number]:
        found, few_floor = kernel_distance(self.few, self.few_reference), self.few_floor
        floor = None if few_floor is None else kernel_distance(few_floor, self.few_reference).value
        reach = 1.96 * found.standard_error
        kernel = Number(
            self.extractor.kernel_name,
            found.value,
            "lower",
            floor,
            found.value - reach,
            found.value + reach,
            "95 %, jackknife",
        )
        energy = energy_distance(self.few, self.few_reference)
        floor = None if few_floor is None else energy_distance(few_floor, self.few_reference)
        return [kernel, Number("energy distance", energy, "lower", floor)]

    def _manifold(self) -> list[Number]:
        numbers = []
        for function, k in ((precision_recall, self.settings.k), (density_coverage, self.settings.k_coverage)):
            if k < self.k_fits:
                found = function(self.few, self.few_reference, k=k)
                floor = None if self.few_floor is None else function(self.few_floor, self.few_reference, k=k)
                numbers += [
                    Number(name, value, "higher", getattr(floor, name, None), note=f"k = {k}")
                    for name, value in found._asdict().items()
                ]
        return numbers

    def _memorised(self) -> list[Number]:
        alpha = self.settings.alpha
        if self.held_out is None:  # what is unusually near is known by images that were not trained on
            return []
        found = nearest_neighbours(self.generated, self.training, self.held_out, alpha=alpha)
        worst = found.ratio.argsort()[:_SUSPICIOUS]
        self.details["nearest_training_images"] = [
            {
                "generated": int(i),
                "training": int(found.index[i, 0]),
                "distance": float(found.distance[i, 0]),
                "ratio": float(found.ratio[i]),
            }
            for i in worst
        ]
        self.details["memorisation_threshold"] = found.threshold
        note = "share flagged as near copies of training images; floor: by chance"
        return [Number("memorised", found.fraction, "lower", alpha, note=note)]

    def _classes(self) -> list[Number]:
        logits, training = self._logits(self.generated), self._logits(self.training)
        if logits is None:
            return []
        floor = None if self.floor is None else self._logits(self.floor)
        balance = class_balance(logits, training)
        floor_balance = None if floor is None else class_balance(floor, training).total_variation
        self.details["class_shares"] = balance.shares.tolist()
        usual = None if floor is None else confidence(floor)
        return [
            Number("class imbalance", balance.total_variation, "lower", floor_balance, note="l1 / 2"),
            Number("confidence", confidence(logits), "none", usual, note="mean top probability"),
        ]

    @torch.no_grad()
    def _logits(self, features: Tensor) -> Tensor | None:
        parameter = next(self.extractor.parameters(), features)
        return self.extractor.logits(features.to(parameter.device, parameter.dtype))

    def protocol(self) -> dict[str, Any]:
        r"""What the numbers depend on."""
        return {
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.hash,
            "features": self.generated.shape[1],
            "resize": self.extractor.resize,
            "generated_images": len(self.generated),
            "reference_images": len(self.training),
            "floor_images": 0 if self.floor is None else len(self.floor),
            "subset_images": f"{len(self.few)} generated, {len(self.few_reference)} reference",
            "evaluation_seed": self.settings.seed,
        }

    def warnings(self) -> list[str]:
        r"""Reasons why the numbers cannot be compared with others."""
        n, width, found = len(self.generated), self.generated.shape[1], []
        if n < 10 * width:
            found.append(
                f"{n} images are few for {width} features, so that the Frechet distance is biased upward. Compare it "
                f"with the floor and with numbers at the same n only, or generate at least {10 * width}."
            )
        if self.held_out is None or self.floor is None:
            found.append(
                "the data have one part alone, so that the numbers have no floor, and near copies are not looked for."
            )
            return found
        if n > len(self.floor):
            found.append(f"the floor is of {len(self.floor)} images (all held-out ones), the numbers are of {n}.")
        if len(self.held_out) * self.settings.alpha < 1:
            found.append(
                f"{len(self.held_out)} held-out images are too few for memorisation at alpha={self.settings.alpha}."
            )
        return found
