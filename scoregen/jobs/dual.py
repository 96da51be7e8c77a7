r"""Dual smoothing: experts of several noise levels, and a selector that chooses one of them for each input."""

from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from scoregen.checks import positive
from scoregen.errors import UserError
from scoregen.jobs.base_classifier import check_told, classes_of, denoiser_of, purified, trained
from scoregen.jobs.certifying import CertifyingJob, by_place
from scoregen.jobs.job import Weights
from scoregen.jobs.training_data import check_names, check_units, names_of
from scoregen.smoothing.noise import AbstractNoise, Gaussian


@dataclass(frozen=True, kw_only=True)
class Dual(CertifyingJob):
    r"""Certifies inputs by dual smoothing; keys as in conf/dual.yaml.

    Args:
        selector: a checkpoint, or a run folder: its classes are the places of the experts.
        experts: checkpoints or run folders, one for each of `sigmas`; behind `purify` also one for all.
        sigmas: standard deviations of the experts' noise, increasing; in all else it is like `noise`, the selector's.
        weights: "ema", "model" or "ema:LENGTH", of all of them.
        n_selector: draws of the selector for an input; None: n.
        max_radius: None: twice the selector's sigma. step: None: half of the smallest sigma.
        purify: a denoiser before the experts, at each sigma; the selector sees the noisy input.
        **others: those of `CertifyingJob`.
    """

    selector: str
    experts: list[str]
    sigmas: list[float]
    weights: Weights = "ema"
    noise: AbstractNoise = field(default_factory=lambda: Gaussian(1.0))
    n_selector: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not hasattr(self.noise, "sigma"):
            raise UserError(f"noise: must have a sigma, which `sigmas` replaces for the experts, got {self.noise!r}.")
        for sigma in self.sigmas:
            positive(sigmas=sigma)
        if len(self.sigmas) < 2 or sorted(set(self.sigmas)) != self.sigmas:
            raise UserError(f"sigmas: must be two or more, increasing, got {self.sigmas}.")
        shared = self.purify.checkpoint is not None and len(self.experts) == 1
        if len(self.experts) != len(self.sigmas) and not shared:
            raise UserError(
                f"experts: must be one for each of sigmas={self.sigmas}, got {len(self.experts)}. One expert for all "
                "of them needs purify.checkpoint=..., a denoiser of every noise level."
            )

    def rule(self, g: Any) -> Any:
        from scoregen.smoothing.dual_rules import make_dual_method

        asked = self.asked() | {"n_selector": self.n_selector}
        return make_dual_method(self.method, self.noise, self._noises(), **asked)

    def _noises(self) -> list[AbstractNoise]:
        r"""The noise of each expert: the selector's with another sigma."""
        kind = type(self.noise)
        arguments = {name: getattr(self.noise, name) for name in signature(kind).parameters}
        return [kind(**(arguments | {"sigma": sigma})) for sigma in self.sigmas]

    def smoothed(self, device: Any) -> tuple[Any, list[str]]:
        from scoregen.smoothing import DualSmoothing, SmoothedClassifier

        selector = trained(self, self.selector, self.weights)
        check_told(selector, self.noise)
        places = classes_of(selector, self.data, device, labelled=False)
        chooser = SmoothedClassifier(selector, self.noise, places, **self.options())
        networks = {path: trained(self, path, self.weights) for path in dict.fromkeys(self.experts)}
        classes = {path: classes_of(network, self.data, device) for path, network in networks.items()}
        paths = self.experts if len(self.experts) > 1 else self.experts * len(self.sigmas)
        behind = self._behind([networks[path] for path in paths])
        noises = self._noises()
        experts = [
            SmoothedClassifier(network, noise, classes[path], **self.options())
            for path, network, noise in zip(paths, behind, noises, strict=True)
        ]
        for path in [self.selector, *networks]:
            check_units(path, self.data)
        told = check_names(_names(list(networks)), self.data, max(classes[path] for path in networks))
        told = [f"selector: {self.selector}", *told]
        told += [f"expert {k}: {path}, {noise!r}" for k, (path, noise) in enumerate(zip(paths, noises, strict=True))]
        return DualSmoothing(chooser, experts), told

    def _behind(self, networks: list[Any]) -> list[Any]:
        r"""The networks, each behind the denoiser at its noise where there is one."""
        noises = self._noises()
        if self.purify.checkpoint is None:
            for network, noise in zip(networks, noises, strict=True):
                check_told(network, noise)
            return networks
        denoiser = denoiser_of(self, networks[0])
        return [purified(self, network, denoiser, noise) for network, noise in zip(networks, noises, strict=True)]

    def networks(self) -> dict[str, Any]:
        experts = [by_place(path) for path in self.experts]
        return {"selector": by_place(self.selector), "experts": experts, "weights": self.weights}


def _names(experts: list[str]) -> list[str]:
    r"""The names of the classes of the experts, which answer for one another; none where they are not known."""
    (place, first), *others = [(path, found) for path in experts if (found := names_of(path))] or [("", [])]
    for path, found in others:
        if found != first:
            k = next((k for k, pair in enumerate(zip(first, found, strict=False)) if pair[0] != pair[1]), None)
            here, there = (len(first), len(found)) if k is None else (first[k], found[k])
            what = "their number" if k is None else f"class {k}"
            raise UserError(
                f"experts: must have the same classes in the same order, got {here} of '{place}' and {there} of "
                f"'{path}' as {what}. Train them on the same data."
            )
    return first
