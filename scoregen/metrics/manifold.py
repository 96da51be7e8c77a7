r"""Fidelity and diversity apart: precision and recall, density and coverage, from k-nearest-neighbour balls.

B_k(z) = closed ball around z that reaches its k-th nearest neighbour within z's own set
precision = share of generated points inside some ball of the reference     recall = the same with the roles swapped
density   = mean number of reference balls around a generated point, over k
coverage  = share of reference balls with a generated point inside
"""

from typing import NamedTuple

import torch
from torch import Tensor

from scoregen.metrics.distances import Features, feature_pair, nearest, row_blocks, squared_distances, tie_slack


class PrecisionRecall(NamedTuple):
    r"""Both in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    r"""Density can exceed 1; coverage is in [0, 1]."""

    density: float
    coverage: float


def precision_recall(generated: Features, reference: Features, k: int = 3) -> PrecisionRecall:
    r"""Improved precision and recall.

        Both depend on the numbers of points and on k: state them. An outlier of the set makes a large ball.

    Args:
        generated: (N, D); reference: (M, D).
        k: neighbours that set the radius of a ball, k < min(N, M).

    Reference: Kynkaanniemi et al. (2019), arXiv 1904.06991, equations 1 to 3.
    """
    generated, reference = _centred(generated, reference)
    covering, _, _ = _inside(generated, reference, k)
    recalled, _, _ = _inside(reference, generated, k)
    return PrecisionRecall(float((covering > 0).double().mean()), float((recalled > 0).double().mean()))


def density_coverage(generated: Features, reference: Features, k: int = 5) -> DensityCoverage:
    r"""Density and coverage: robust to outliers of the generated set, which makes no balls here.

        For equal laws E[density] = 1 and E[coverage] = 1 - prod_{i=1}^{k} (M - i)/(N + M - i).

    Args:
        generated: (N, D); reference: (M, D).
        k: neighbours that set the radius of a ball, k < M.

    Reference: Naeem et al. (2020), arXiv 2002.09797, equations 5 and 6.
    """
    generated, reference = _centred(generated, reference)
    covering, covered, _ = _inside(generated, reference, k)
    return DensityCoverage(float(covering.double().mean()) / k, float(covered.double().mean()))


def _centred(generated: Features, reference: Features) -> tuple[Tensor, Tensor]:
    r"""Both sets about the mean of the reference: distances stay, round-off shrinks."""
    generated, reference = feature_pair(generated, reference, least=2)
    centre = reference.mean(0)
    return generated - centre, reference - centre


def _inside(points: Tensor, centres: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""How many balls hold each point (N,), whether each ball holds a point (M,), and the squared radii (M,)."""
    radii = nearest(centres, centres, k, same=True)[0][:, -1]
    reach = radii + tie_slack(points, centres)
    count = torch.empty(len(points), dtype=torch.long, device=points.device)
    holds = torch.zeros(len(centres), dtype=torch.bool, device=points.device)
    for rows in row_blocks(len(points), len(centres)):
        hit = squared_distances(points[rows], centres) <= reach
        count[rows] = hit.sum(1)
        holds |= hit.any(0)
    return count, holds, radii
