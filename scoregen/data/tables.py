r"""Tables of strictly positive measurements that ship inside scikit-learn, for multiplicative processes."""

import math
from abc import abstractmethod
from typing import Any

import torch

from scoregen.data.base import ArrayDataset, Held, Source
from scoregen.data.parts import AUTO


class PositiveTable(Source):
    r"""The strictly positive columns of a table, each in units of its geometric mean over all rows, (D,).

        So the logarithms of the columns have mean 0, and the units of the measurements (micrometres, percent) do not
        matter; skewness and correlations do not change. A tenth of the rows is held out.

    Args:
        seed: seed of the split.
        test, validation: which data are these parts, as in `Source`.

    Attributes:
        columns: their names.
        units: what one unit of each column is in the units of the table, (D,) float64.
    """

    range = (0.0, math.inf)

    def __init__(self, seed: int = 0, test: Held = AUTO, validation: Held = AUTO) -> None:
        super().__init__(test=test, validation=validation)
        self.seed = seed
        table = self._read()
        values = torch.from_numpy(table.data)
        positive = (values > 0).all(0)
        self.columns = [str(n) for n, keep in zip(table.feature_names, positive.tolist(), strict=True) if keep]
        self.units = values[:, positive].log().mean(0).exp()
        self._x, self._label = values[:, positive] / self.units, torch.from_numpy(table.target)

    @abstractmethod
    def _read(self) -> Any:
        r"""The table as scikit-learn gives it: data, target, feature_names."""

    @property
    def seed_of_parts(self) -> int:
        return self.seed

    def load(self, train: bool) -> ArrayDataset | None:
        return ArrayDataset(self._x, self._label) if train else None


class BreastCancer(PositiveTable):
    r"""Wisconsin breast cancer: 569 cell images, 24 of their 30 measurements (those without zeros), two classes.

    Args:
        seed: seed of the split.

    Reference: Street, Wolberg, Mangasarian (1993); `sklearn.datasets.load_breast_cancer`.
    """

    name, num_classes = "breast_cancer", 2

    def _read(self) -> Any:
        from sklearn.datasets import load_breast_cancer

        return load_breast_cancer()


class Wine(PositiveTable):
    r"""Chemical analyses of 178 wines: 13 measurements, three growers.

    Args:
        seed: seed of the split.

    Reference: Aeberhard & Forina (1992); `sklearn.datasets.load_wine`.
    """

    name, num_classes = "wine", 3

    def _read(self) -> Any:
        from sklearn.datasets import load_wine

        return load_wine()
