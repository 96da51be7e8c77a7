r"""The Frechet (2-Wasserstein) distance between Gaussians fitted to two sets of features.

    d^2 = ||m_a - m_b||^2 + tr A + tr B - 2 tr (A^{1/2} B A^{1/2})^{1/2}

With A = F F^T and B = G G^T the last trace is the sum of the singular values of F^T G. F and G come from symmetric
eigen-decompositions without the null directions: no square root is taken of a round-off error, as it is where the
eigenvalues of A B are used, so singular covariances (dead features, fewer images than features) lose no digits.
"""

import torch
from torch import Tensor

from scoregen.metrics.distances import Features, feature_matrix
from scoregen.metrics.moments import Moments


def frechet_distance(generated: Features | Moments, reference: Features | Moments) -> float:
    r"""The squared 2-Wasserstein distance between two fitted Gaussians (the number that is reported as FD or FID).

        Biased upward at small n, more so for wide features: compare numbers at equal n only, beside the floor.
        Only with Inception features may it be called FID.

    Args:
        generated: features (N, D), N >= 2, or their `Moments`.
        reference: features (M, D), M >= 2, or their `Moments`.

    Returns:
        d^2 >= 0, computed in float64.

    Raises:
        ValueError: the widths differ, or there are fewer than two rows.

    Reference: Dowson, Landau (1982); Heusel et al. (2017), arXiv 1706.08500, equation 6.
    """
    a, b = as_moments(generated, "generated"), as_moments(reference, "reference")
    if len(a.mean) != len(b.mean):
        raise ValueError(
            f"generated and reference must have the same number of features, got {len(a.mean)} and {len(b.mean)}. "
            "Use one extractor for both."
        )
    return frechet_distance_gaussian(a.mean, a.covariance, b.mean, b.covariance)


def as_moments(features: Features | Moments, name: str) -> Moments:
    r"""Moments as they are, or those of features."""
    return features if isinstance(features, Moments) else Moments.of(feature_matrix(features, name, least=2))


def frechet_distance_gaussian(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    r"""`frechet_distance` of means (D,) and symmetric positive semi-definite covariances (D, D) in float64.

    Linear algebra runs on the CPU: it is quick there at these sizes, and not every device has it in float64.
    """
    mean_a, covariance_a, mean_b, covariance_b = (x.cpu() for x in (mean_a, covariance_a, mean_b, covariance_b))
    cross = torch.linalg.svdvals(_factor(covariance_a).T @ _factor(covariance_b)).sum()
    shift = (mean_a - mean_b).square().sum()
    return max(0.0, float(shift + covariance_a.trace() + covariance_b.trace() - 2 * cross))


def _factor(covariance: Tensor) -> Tensor:
    r"""F of shape (D, rank) with F F^T = covariance; eigenvalues below round-off are null."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    keep = values > values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    factor: Tensor = vectors[:, keep] * values[keep].sqrt()
    return factor
