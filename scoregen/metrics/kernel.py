r"""Unbiased two-sample statistics: the kernel distance (squared maximum mean discrepancy) and the energy distance.

    MMD^2 = sum_{i != j} k(x_i, x_j) / n(n-1) + sum_{i != j} k(y_i, y_j) / m(m-1) - 2 sum_{ij} k(x_i, y_j) / nm
    kernel distance:  k(x, y) = (x.y / D + 1)^3            energy distance:  k(x, y) = -||x - y||

Unbiased at every n, so unlike the Frechet distance numbers at different n can be compared; the value may be negative.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from scoregen.metrics.distances import Features, feature_pair, row_blocks, squared_distances

Kernel = Callable[[Tensor, Tensor], Tensor]


class Estimate(NamedTuple):
    r"""A number with its standard error."""

    value: float
    standard_error: float

    def __float__(self) -> float:
        return self.value


def kernel_distance(generated: Features, reference: Features) -> Estimate:
    r"""Unbiased squared MMD with the cubic polynomial kernel, with its standard error.

        With Inception features it is the KID on all pairs instead of random subsets: order does not matter, nothing is
        drawn. Time O((n + m)^2 D), memory bounded. The standard error is the delete-one jackknife over both samples; it
        is conservative (up to sqrt 2 too wide) where the two laws coincide.

    Args:
        generated: (N, D), N >= 3; reference: (M, D), M >= 3.

    Reference: Gretton et al. (2012), equation 3; Binkowski et al. (2018), arXiv 1801.01401, section 4.
    """
    return _statistic(_cubic, *feature_pair(generated, reference, least=3))


def energy_distance(generated: Features, reference: Features) -> float:
    r"""Unbiased energy distance 2 E||X - Y|| - E||X - X'|| - E||Y - Y'||.

        Zero only for equal laws, in any dimension and without features: the number for small vectors and tests.

    Args:
        generated: (N, D), N >= 3; reference: (M, D), M >= 3.

    Reference: Szekely, Rizzo (2013), "Energy statistics", equation 5.
    """
    return _statistic(_negative_distance, *feature_pair(generated, reference, least=3)).value


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _negative_distance(x: Tensor, y: Tensor) -> Tensor:
    return -squared_distances(x, y).sqrt()


def _row_sums(kernel: Kernel, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""sum_j k(x_i, y_j) of shape (n,) and sum_i k(x_i, y_j) of shape (m,)."""
    rows, columns = x.new_empty(len(x)), x.new_zeros(len(y))
    for block in row_blocks(len(x), len(y)):
        values = kernel(x[block], y)
        rows[block] = values.sum(1)
        columns += values.sum(0)
    return rows, columns


def _within(kernel: Kernel, x: Tensor) -> Tensor:
    r"""sum_{j != i} k(x_i, x_j), of shape (n,)."""
    sums = x.new_empty(len(x))
    for block in row_blocks(len(x), len(x)):
        values = kernel(x[block], x)
        values[:, block].fill_diagonal_(0)
        sums[block] = values.sum(1)
    return sums


def _statistic(kernel: Kernel, x: Tensor, y: Tensor) -> Estimate:
    r"""The U-statistic and its jackknife standard error, from row sums alone."""
    n, m = len(x), len(y)
    xx, yy = _within(kernel, x), _within(kernel, y)
    xy, yx = _row_sums(kernel, x, y)
    cross = xy.sum()
    within_x, within_y = xx.sum() / (n * (n - 1)), yy.sum() / (m * (m - 1))
    value = within_x + within_y - 2 * cross / (n * m)
    without_x = (xx.sum() - 2 * xx) / ((n - 1) * (n - 2)) + within_y - 2 * (cross - xy) / ((n - 1) * m)
    without_y = within_x + (yy.sum() - 2 * yy) / ((m - 1) * (m - 2)) - 2 * (cross - yx) / (n * (m - 1))
    variance = _jackknife(without_x) + _jackknife(without_y)
    return Estimate(float(value), float(variance.sqrt()))


def _jackknife(values: Tensor) -> Tensor:
    return (values - values.mean()).square().sum() * (len(values) - 1) / len(values)
