r"""A representation along the path from data to noise: how far it moves, and how well it still predicts the class.

u_t = y + t eps, with the same eps of a sample at all t
similarity(t) = mean cosine of c(u_t, t) and c(u_low, low),   accuracy(t) = of a linear probe trained at that t
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from scoregen.checks import positive
from scoregen.data import Dataset
from scoregen.pictures import figure
from scoregen.rng import Stream, generators, randn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Encoder(Protocol):
    r"""A network with a chart and a class token, such as a vision transformer that is told the noise level."""

    def to_chart(self, x: Tensor) -> Tensor:
        r"""Data (B, *S) to model coordinates."""
        ...

    def represent(self, u: Tensor, t: Tensor | float) -> Tensor:
        r"""The class tokens (B, width) of u = y + t eps (B, *S)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        r"""The weights, whose device is that of the network."""
        ...


@dataclass(frozen=True)
class Trajectory:
    r"""Numbers along the paths.

    Args:
        times: noise levels in model coordinates (twice those of pixels in [0, 1]), increasing.
        similarity: mean cosine with the representation at the lowest time.
        accuracy: of a linear probe on held-out data at the same time.
    """

    times: list[float]
    similarity: list[float]
    accuracy: list[float]


@torch.no_grad()
def representations(
    model: Encoder, x: Tensor, t: float, *, seed: int = 0, first: int = 0, batch_size: int = 250
) -> Tensor:
    r"""Class tokens (B, width) of x at time t, float64 on the CPU; image k's noise is that of number first + k.

    Args:
        model: of the representation. x: (B, C, H, W) in its own units. t: > 0.
        seed: of the noise, which does not depend on t. first: number of the first image. batch_size: images at a time.
    """
    device, parts = next(model.parameters()).device, []
    for start in range(0, len(x), batch_size):
        part = x[start : start + batch_size]
        places = range(first + start, first + start + len(part))
        eps = randn(part.shape, generators(seed, Stream.REPRESENTATION, 0, places))
        parts.append(model.represent((model.to_chart(part) + t * eps).to(device), t).cpu().double())
    return torch.cat(parts)


def cosine_similarity(a: Tensor, b: Tensor) -> float:
    r"""The mean cosine of rows of a and b (B, D)."""
    return nn.functional.cosine_similarity(a, b, dim=1).mean().item()


def linear_probe(train: Tensor, train_label: Tensor, test: Tensor, test_label: Tensor, ridge: float = 1e-3) -> float:
    r"""The accuracy of ridge regression on one-hot labels, of standardised features, in closed form.

    Args:
        train, test: features (N, D), (M, D). train_label, test_label: (N,), (M,) integers.
        ridge: penalty, in units of the mean variance of the features, > 0.

    Raises:
        ValueError: ridge is not > 0.
    """
    positive(ridge=ridge)
    train, test = train.double(), test.double()
    mean, std = train.mean(0), train.std(0).clamp_min(1e-12)
    a, b = ((v - mean) / std for v in (train, test))
    targets = nn.functional.one_hot(train_label, int(max(train_label.max(), test_label.max())) + 1).double()
    gram = a.T @ a + ridge * len(a) * torch.eye(a.shape[1], dtype=a.dtype)
    weights: Tensor = torch.linalg.solve(gram, a.T @ (targets - targets.mean(0)))
    answer = (b @ weights + targets.mean(0)).argmax(1)
    return (answer == test_label).double().mean().item()


def along_trajectory(
    model: Encoder, train: Dataset, test: Dataset, times: Sequence[float], *, n: int = 2000, seed: int = 0
) -> Trajectory:
    r"""Similarity on held-out data, and accuracy of a probe trained on n images and tested on n others, at each time.

    Args:
        model: of the representation. train, test: labelled data.
        times: increasing, > 0; the lowest is the reference.
        n: images of each part. seed: seed of the noise.

    Raises:
        ValueError: times that do not increase from above 0, or data without labels.
    """
    times = [float(t) for t in times]
    if not times or times[0] <= 0 or any(a >= b for a, b in pairwise(times)):
        raise ValueError(f"times must be > 0 and increasing, got times={times}.")
    (x, label), (held_out, held_out_label) = train.in_units(slice(n)), test.in_units(slice(n))
    if label is None or held_out_label is None:
        raise ValueError("train and test must have labels for a linear probe, got data without them.")
    reference, similarity, accuracy = None, [], []
    for t in times:
        known = representations(model, x, t, seed=seed)
        found = representations(model, held_out, t, seed=seed, first=n)
        reference = found if reference is None else reference
        similarity.append(cosine_similarity(found, reference))
        accuracy.append(linear_probe(known, label, found, held_out_label))
    return Trajectory(times, similarity, accuracy)


def save_trajectories(found: dict[str, Trajectory], path: Path) -> Path:
    r"""Writes both curves of each named model against the noise level on pixels in [0, 1]."""

    def draw(axes: "Axes") -> None:
        for k, (name, one) in enumerate(found.items()):
            sigma = [t / 2 for t in one.times]
            axes.plot(sigma, one.accuracy, color=f"C{k}", marker=".", label=f"{name}: linear probe, accuracy")
            axes.plot(sigma, one.similarity, color=f"C{k}", linestyle="--", label=f"{name}: cosine with the path's end")
        axes.set_xscale("log")
        axes.set_xlabel("noise sigma, in units of pixels in [0, 1]")
        axes.set_ylabel("accuracy of the probe, or cosine")
        axes.set_ylim(None, 1.02)
        axes.legend(fontsize="small")

    return figure(path, draw, (7.0, 4.0))
