r"""Feature matrices and Euclidean distances between their rows, a block of rows at a time.

    ||a - b||^2 = ||a||^2 + ||b||^2 - 2 a.b,  in float64, so that one matrix product serves every metric here.

The cancellation costs about 1e-16 times the largest squared norm; callers that compare distances use `tie_slack`.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

Features = Tensor | np.ndarray

BLOCK_ELEMENTS = 1 << 24  # 128 MiB of float64: the largest distance block held at once


def double(x: Tensor) -> Tensor:
    r"""The tensor in float64: where it lies, or on the CPU when its device (MPS) has no float64."""
    return (x.cpu() if x.device.type == "mps" else x).to(torch.float64)


def feature_matrix(features: Features, name: str = "features", least: int = 1) -> Tensor:
    r"""A checked float64 matrix.

    Args:
        features: (N, D) tensor or array of finite real numbers.
        name: of the argument, for messages.
        least: the smallest number of rows.

    Raises:
        TypeError: neither a tensor nor an array of numbers.
        ValueError: not a matrix, too few rows, or values that are not finite.
    """
    if isinstance(features, np.ndarray):
        features = torch.as_tensor(features)
    if not isinstance(features, Tensor) or features.is_complex():
        raise TypeError(f"{name} must be a real tensor or array of shape (N, D), got {type(features).__name__}.")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(
            f"{name} must have shape (N, D), got {tuple(features.shape)}. Flatten images or pass them "
            "through a feature extractor."
        )
    if len(features) < least:
        raise ValueError(f"{name} must have at least {least} rows, got {len(features)}.")
    features = double(features.detach())
    if not torch.isfinite(features).all():
        bad = int((~torch.isfinite(features)).any(1).sum())
        raise ValueError(f"{name} must be finite, got {bad} rows with NaN or infinity. Check the samples.")
    return features


def feature_pair(
    generated: Features, reference: Features, least: int = 1, names: tuple[str, str] = ("generated", "reference")
) -> tuple[Tensor, Tensor]:
    r"""Two checked float64 matrices of the same width on the same device."""
    a, b = feature_matrix(generated, names[0], least), feature_matrix(reference, names[1], least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same number of features, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}. Use one extractor for both."
        )
    return a, b.to(a.device)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    r"""||a_i - b_j||^2 of shape (N, M), never negative."""
    square = a.square().sum(1)[:, None] + b.square().sum(1)
    return torch.addmm(square, a, b.T, alpha=-2).clamp_(min=0)


def row_blocks(n: int, columns: int) -> Iterator[slice]:
    r"""Slices that cover n rows so that a block with this many columns stays below `BLOCK_ELEMENTS`."""
    size = max(1, BLOCK_ELEMENTS // max(columns, 1))
    for begin in range(0, n, size):
        yield slice(begin, min(begin + size, n))


def tie_slack(*matrices: Tensor) -> float:
    r"""The round-off of a squared distance; distances closer than this count as equal."""
    return 1e-13 * max(float(m.square().sum(1).max()) for m in matrices)


def nearest(a: Tensor, b: Tensor, k: int, same: bool = False) -> tuple[Tensor, Tensor]:
    r"""Squared distances and indices of the k nearest rows of b for each row of a, ascending.

    Args:
        a: (N, D); b: (M, D).
        k: number of neighbours.
        same: a and b are one set, in which a row is not its own neighbour.

    Returns:
        (N, k) squared distances and (N, k) indices into b.

    Raises:
        ValueError: b has too few rows for k neighbours.
    """
    available = len(b) - int(same)
    if not 1 <= k <= available:
        raise ValueError(f"k must satisfy 1 <= k <= {available} (the rows that can be neighbours), got k={k}.")
    values, indices = [], []
    for rows in row_blocks(len(a), len(b)):
        block = squared_distances(a[rows], b)
        if same:
            block[:, rows].fill_diagonal_(float("inf"))
        found = block.topk(k, dim=1, largest=False)
        values.append(found.values)
        indices.append(found.indices)
    return torch.cat(values), torch.cat(indices)
